package flows

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/conntrack"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Change is a change of the rules. Connections that begin while it is made can get the verdict of before, or none at all, and
// keep it, so those are compared with the policy by the address that they carry.
type Change struct {
	mode   Mode
	events *conntrack.Events // nil where the kernel does not report connections

	started       map[conntrack.Tuple]bool // until ended is closed, the listener's
	ending, ended chan struct{}
}

// Begin is called before the rules change. From then on it takes note of every connection that begins, until End.
func Begin(mode Mode) *Change {
	c := &Change{mode: mode, started: map[conntrack.Tuple]bool{}, ending: make(chan struct{}), ended: make(chan struct{})}
	if mode == None {
		return c
	}
	events, err := conntrack.ListenAll()
	if err != nil {
		return c
	}
	c.events = events
	go c.listen()
	return c
}

// The limits of listening: how long one wait lasts, after which the end is noticed, for how long what is queued by then is taken
// in, and how many connections are noted. What is lost beyond that keeps its address, as it would without all this.
const (
	listenTurn  = 50 * time.Millisecond
	listenDrain = 200 * time.Millisecond
	maxStarted  = 1 << 16
)

// listen takes in notifications. It ends, once it is to, when none is left, and soon in any case: on a busy node there is always
// one more.
func (c *Change) listen() {
	defer close(c.ended)
	var last time.Time // the end of listening, zero until it is asked for
	for {
		_, flow, ok, err := c.events.Next()
		if ok && len(c.started) < maxStarted {
			c.started[flow.Original] = true
		}
		if err != nil && !errors.Is(err, conntrack.ErrLost) {
			return
		}
		select {
		case <-c.ending:
			if last.IsZero() {
				last = time.Now().Add(listenDrain)
			}
			if !ok && err == nil || time.Now().After(last) {
				return
			}
		default:
			if !ok && err == nil {
				c.events.Wait(listenTurn)
			}
		}
	}
}

// stop returns the connections that began.
func (c *Change) stop() map[conntrack.Tuple]bool {
	if c.events != nil {
		close(c.ending)
		<-c.ended
		c.events.Close()
		c.events = nil
	}
	return c.started
}

// End ends the connections of the sources that contradict the rules now, in every zone: those that kept the pod's address, those to
// which the former rules, or none since Begin, gave another one of the node's, and those whose address left the node. With each
// source comes what is known of its packets. It returns how many it ended.
func (c *Change) End(ctx context.Context, former, now policy.Decider, sources map[netip.Addr]policy.Packet) (int, error) {
	started := c.stop()
	if c.mode == None || len(sources) == 0 {
		return 0, nil
	}
	table, err := conntrack.Open()
	if err != nil {
		return 0, err
	}
	defer table.Close()
	ended := 0
	var failures []error
	for _, family := range []policy.Family{policy.IPv4, policy.IPv6} {
		s := newSelection(c.mode, family, former, now, sources)
		if s == nil {
			continue
		}
		s.started = started
		n, err := s.end(ctx, table, family)
		ended += n
		if err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", family, err))
		}
	}
	return ended, errors.Join(failures...)
}

// end ends what the selection picks of one family, also where it comes back.
func (s *selection) end(ctx context.Context, table *conntrack.Table, family policy.Family) (ended int, err error) {
	if s.local, err = localDestinations(inetFamily(family)); err != nil {
		return 0, fmt.Errorf("addresses of the node: %w", err)
	}
	of := sought{family: family}
	for source := range s.sources {
		of.add(source)
	}
	kept := returned{}
	ended, err = end(ctx, table, of, func(f *conntrack.Flow) bool {
		wrong := s.wrong(f)
		if wrong {
			kept.add(f)
		}
		return wrong
	})
	if err != nil {
		return ended, err
	}
	return ended, kept.keepEnded(ctx, table, family)
}
