package nfnl

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// dialIn opens a connection in a network namespace of its own.
func dialIn(t *testing.T, s *netnstest.Space) *Conn {
	t.Helper()
	var c *Conn
	if err := s.Do(func() (err error) { c, err = Dial(); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestSettledShowsWhatItNames: one connection writes the number of the coming generation into an element, another reads
// generation and element. Where the generation is the same before and after, the element must name it.
func TestSettledShowsWhatItNames(t *testing.T) {
	netnstest.Require(t)
	s := netnstest.NewSpace(t, "settled")
	writer, reader := dialIn(t, s), dialIn(t, s)
	set := Set{Table: "x", Name: "s", Key: IPv4Addr}
	address := netip.MustParseAddr("10.0.0.1")
	b := NewBatch()
	b.AddTable("x", 0, Excl)
	b.AddSet(set)
	b.AddElements("x", "s", []Element{{Key: address}}, Excl)
	if err := writer.Commit(b); err != nil {
		t.Fatal(err)
	}
	first, err := reader.Settled()
	if err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	written := make(chan error)
	go func() {
		for !stop.Load() {
			g, err := writer.Generation()
			if err == nil {
				b := NewGuardedBatch(g)
				b.DeleteElements("x", "s", []Element{{Key: address}})
				b.AddElements("x", "s", []Element{{Key: address, Comment: fmt.Sprint(g + 1)}}, Excl)
				err = writer.Commit(b)
			}
			if err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	read := func(generation func() (uint32, error)) (readings, wrong int) {
		for readings < 3000 {
			before, err1 := generation()
			e, found, err2 := reader.Element("x", "s", address)
			after, err3 := reader.Generation()
			if err := errors.Join(err1, err2, err3); err != nil {
				t.Fatal(err)
			}
			if before == after && after > first+3 {
				readings++
				if !found || e.Comment != fmt.Sprint(after) {
					wrong++
				}
			}
		}
		return readings, wrong
	}
	_, unsettled := read(reader.Generation)
	readings, wrong := read(reader.Settled)
	stop.Store(true)
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	t.Logf("of %d readings %d were older than their generation, and %d after waiting for it", readings, unsettled, wrong)
	if wrong > 0 {
		t.Errorf("%d of %d readings are older than the generation that Settled named", wrong, readings)
	}
}

// TestSettledChangesNothing: waiting for a generation does not make one, also where there is no table at all.
func TestSettledChangesNothing(t *testing.T) {
	netnstest.Require(t, "nft")
	s := netnstest.NewSpace(t, "settled")
	c := dialIn(t, s)
	first, err := c.Settled()
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if again, err := c.Settled(); err != nil || again != first {
			t.Fatalf("generation %d after %d: %v", again, first, err)
		}
	}
	if ruleset := s.Run(t, "nft", "list", "ruleset"); ruleset != "" {
		t.Errorf("made %s", ruleset)
	}
	s.Run(t, "nft", "add", "table", "inet", "x")
	if now, err := c.Settled(); err != nil || now == first {
		t.Errorf("generation %d did not change with the ruleset: %v", now, err)
	}
}
