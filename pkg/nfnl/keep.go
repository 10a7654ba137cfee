package nfnl

import (
	"sync"

	"golang.org/x/sys/unix"
)

// kept is the one socket that nobody has at the moment, of the network namespace that place says.
var kept struct {
	mu    sync.Mutex
	conn  *Conn
	place place
}

// place identifies the network namespace of a thread. A socket keeps its namespace, so no other has the numbers while one is kept.
type place struct{ device, inode uint64 }

// Borrow is DialFamily for who needs a socket for a moment, and soon again: it is the one that was given back last in the same network
// namespace, if nobody else has it. Closing a socket while something that was deleted waits for its RCU grace period (8 to 14 ms) waits
// for that too, and so does meanwhile every transaction of the namespace, because the kernel waits with the lock that those need
// (nft_rcv_nl_event): an agent that tries a backend and then writes its first rules would wait in between.
func Borrow(family uint8) (*Conn, error) {
	here, ok := threadsPlace()
	if ok {
		if c := take(here); c != nil {
			c.family = family
			return c, nil
		}
	}
	c, err := DialFamily(family)
	if err == nil {
		c.place = here
	}
	return c, err
}

// Return gives a borrowed socket back. One that failed, or that is left with the rest of an answer, is closed.
func (c *Conn) Return(failure error) {
	if failure != nil || c.unread || c.place == (place{}) {
		_ = c.Close()
		return
	}
	kept.mu.Lock()
	surplus := kept.conn
	kept.conn, kept.place = c, c.place
	kept.mu.Unlock()
	if surplus != nil {
		_ = surplus.Close()
	}
}

func take(here place) *Conn {
	kept.mu.Lock()
	defer kept.mu.Unlock()
	if kept.conn == nil || kept.place != here {
		return nil
	}
	c := kept.conn
	kept.conn = nil
	return c
}

func threadsPlace() (place, bool) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return place{}, false
	}
	return place{st.Dev, st.Ino}, true
}
