package flows

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Change is a change of the rules. Connections that begin while it is made can get the verdict of before, or none at all, and
// keep it, so those are compared with the policy by the address that they carry.
type Change struct {
	mode Mode
	sock *nl.NetlinkSocket // nil where the kernel does not report connections

	started       map[tuple]bool // until ended is closed, the listener's
	ending, ended chan struct{}
}

// Begin is called before the rules change. From then on it takes note of every connection that begins, until End.
func Begin(mode Mode) *Change {
	c := &Change{mode: mode, started: map[tuple]bool{}, ending: make(chan struct{}), ended: make(chan struct{})}
	if mode == None {
		return c
	}
	loadEvents()
	sock, err := nl.Subscribe(unix.NETLINK_NETFILTER, unix.NFNLGRP_CONNTRACK_NEW)
	if err != nil {
		return c
	}
	// Room for some thousand connections; what is lost beyond that keeps its address, as it would without all this.
	_ = sock.SetReceiveBufferSize(4<<20, true)
	timeout := unix.NsecToTimeval(listenTurn.Nanoseconds())
	_ = sock.SetReceiveTimeout(&timeout)
	c.sock = sock
	go c.listen()
	return c
}

// loadEvents asks for the counters of connection tracking, which loads the module that reports connections and waits for it. To
// subscribe loads it too, but does not wait (nfnetlink_bind), and what begins until it is there would be missed.
func loadEvents() {
	const getStats = unix.NFNL_SUBSYS_CTNETLINK<<8 | 5 // IPCTNL_MSG_CT_GET_STATS
	request := nl.NewNetlinkRequest(getStats, unix.NLM_F_ACK)
	request.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: unix.NFNETLINK_V0})
	_, _ = request.Execute(unix.NETLINK_NETFILTER, 0) // without the module there is nothing to listen to
}

// The limits of listening: how long one wait lasts, after which the end is noticed, for how long what is queued by then is taken
// in, and how many connections are noted.
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
		messages, _, err := c.sock.Receive()
		for _, m := range messages {
			if t, ok := originalTuple(m.Data); ok && len(c.started) < maxStarted {
				c.started[t] = true
			}
		}
		select {
		case <-c.ending:
			if last.IsZero() {
				last = time.Now().Add(listenDrain)
			}
			if errors.Is(err, unix.EAGAIN) || time.Now().After(last) {
				return
			}
		default:
		}
		if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOBUFS) {
			return
		}
	}
}

// stop returns the connections that began.
func (c *Change) stop() map[tuple]bool {
	if c.sock != nil {
		close(c.ending)
		<-c.ended
		c.sock.Close()
		c.sock = nil
	}
	return c.started
}

// End ends the connections of the sources that contradict the policy now, in every zone: those that kept the pod's address, and
// those to which the former policy, or none since Begin, gave the node's. It returns how many.
func (c *Change) End(ctx context.Context, former, now policy.Policy, sources []netip.Addr) (int, error) {
	started := c.stop()
	if c.mode == None || len(sources) == 0 {
		return 0, nil
	}
	ended := 0
	var failures []error
	for _, family := range []policy.Family{policy.IPv4, policy.IPv6} {
		s := newSelection(ctx, c.mode, family, former, now, sources)
		if s == nil {
			continue
		}
		var err error
		if s.local, err = localDestinations(inetFamily(family)); err != nil {
			failures = append(failures, fmt.Errorf("%s addresses of the node: %w", family, err))
			continue
		}
		s.started = started
		n, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, inetFamily(family), s)
		ended += int(n) //nolint:gosec // a count of entries in memory
		if err == nil {
			err = s.kept.keepEnded(ctx, family)
		}
		if err != nil {
			failures = append(failures, fmt.Errorf("%s connections: %w", family, err))
		}
	}
	return ended, errors.Join(failures...)
}

// The attributes of a notification (linux/netfilter/nfnetlink_conntrack.h).
const (
	familyHeader  = 4
	tupleOriginal = 1
	tupleIP       = 1
	tupleProto    = 2
	ipv4Source    = 1
	ipv4To        = 2
	ipv6Source    = 3
	ipv6To        = 4
	protoNumber   = 1
	protoFrom     = 2
	protoTo       = 3
)

// originalTuple reads who calls whom out of a notification.
func originalTuple(data []byte) (t tuple, ok bool) {
	if len(data) < familyHeader {
		return tuple{}, false
	}
	var forward netlink.IPTuple
	each(data[familyHeader:], func(typ uint16, value []byte) {
		if typ != tupleOriginal {
			return
		}
		each(value, func(typ uint16, value []byte) {
			each(value, func(field uint16, value []byte) { fill(&forward, typ, field, value) })
		})
	})
	return tupleOf(forward), len(forward.SrcIP) > 0 && len(forward.DstIP) > 0
}

func fill(t *netlink.IPTuple, typ, field uint16, value []byte) {
	switch {
	case typ == tupleIP && (field == ipv4Source || field == ipv6Source):
		t.SrcIP = net.IP(value)
	case typ == tupleIP && (field == ipv4To || field == ipv6To):
		t.DstIP = net.IP(value)
	case typ == tupleProto && field == protoNumber && len(value) == 1:
		t.Protocol = value[0]
	case typ == tupleProto && field == protoFrom && len(value) == 2:
		t.SrcPort = uint16(value[0])<<8 | uint16(value[1])
	case typ == tupleProto && field == protoTo && len(value) == 2:
		t.DstPort = uint16(value[0])<<8 | uint16(value[1])
	}
}

// each visits attributes; one that does not fit ends the walk.
func each(data []byte, visit func(typ uint16, value []byte)) {
	attrs, err := nl.ParseRouteAttr(data)
	if err != nil {
		return
	}
	for _, a := range attrs {
		visit(a.Attr.Type&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), a.Value)
	}
}
