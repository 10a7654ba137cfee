package nfnl

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// TestBorrow: a socket that was given back is handed out again, to one at a time, in its own namespace alone, and not after a failure
// or with the rest of an answer in it.
func TestBorrow(t *testing.T) {
	here, there := netnstest.NewSpace(t, "here"), netnstest.NewSpace(t, "there")
	borrow := func(s *netnstest.Space, family uint8) (c *Conn) {
		t.Helper()
		err := s.Do(func() (err error) { c, err = Borrow(family); return err })
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := borrow(here, unix.NFPROTO_INET)
	second := borrow(here, unix.NFPROTO_INET)
	if first == second {
		t.Fatal("one socket was lent twice")
	}
	second.Return(nil)
	first.Return(nil) // the one more is closed
	if _, err := second.Generation(); !errors.Is(err, unix.EBADF) {
		t.Errorf("the surplus socket is open: %v", err)
	}
	b := NewBatch()
	b.AddTable("t", 0, Excl)
	if err := first.Commit(b); err != nil {
		t.Fatal(err)
	}
	if again := borrow(here, unix.NFPROTO_IPV4); again != first {
		t.Error("the socket that was given back is not lent again")
	} else if names, err := again.Tables(); err != nil || len(names) != 0 {
		t.Errorf("%v, %v: the family is the former borrower's", names, err)
	}
	first.Return(nil)
	elsewhere := borrow(there, unix.NFPROTO_INET)
	if names, err := elsewhere.Tables(); err != nil || len(names) != 0 {
		t.Errorf("%v, %v: the socket is of another namespace", names, err)
	}
	elsewhere.Return(nil)
	first = borrow(here, unix.NFPROTO_INET)
	first.Return(errors.New("something failed"))
	if again := borrow(here, unix.NFPROTO_INET); again == first {
		t.Error("a socket is lent that failed")
	} else if _, err := again.HasRules("t", "c"); err != nil {
		t.Error(err)
	} else if again.Return(nil); borrow(here, unix.NFPROTO_INET) == again {
		t.Error("a socket is lent with the rest of an answer in it")
	}
}

// TestExists asks the kernel once for each socket.
func TestExists(t *testing.T) {
	s := netnstest.NewSpace(t, "exists")
	err := s.Do(func() error {
		c, err := Dial()
		if err != nil {
			return err
		}
		if err := c.Exists(); err != nil {
			return err
		}
		_ = c.Close()
		return c.Exists() // does not use the socket
	})
	if err != nil {
		t.Error(err)
	}
}
