// Package flows ends tracked connections whose source address contradicts the policy. Connection tracking decides about an
// address once, with the first packet, so a long-lived connection outlives every change of rules, and a pod's that began before
// the pod was behind the policy keeps the pod's address.
//
// It refuses to touch a connection that is not a pod's, one to the node itself, and one that carries an address which the policy
// does not give: that is other software's doing, such as an egress gateway's, a Service's, or a NodePort's.
package flows

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Mode says which connections may be ended.
type Mode string

// The modes of --conntrack-flush.
const (
	Changed Mode = "changed" // all whose verdict changed
	UDP     Mode = "udp"     // of those, UDP alone: the peer of a TCP connection sees it break
	None    Mode = "none"
)

// ParseMode reads a mode.
func ParseMode(text string) (Mode, error) {
	switch m := Mode(text); m {
	case Changed, UDP, None:
		return m, nil
	}
	return "", fmt.Errorf("%q: want %s, %s or %s", text, Changed, UDP, None)
}

func inetFamily(f policy.Family) netlink.InetFamily {
	if f == policy.IPv6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// selection picks the connections to end while the library walks over the table. It sets the pace too: the library deletes
// each one right after it was picked.
type selection struct {
	ctx         context.Context //nolint:containedctx // the library's filter takes no context
	mode        Mode
	former, now verdicts
	sources     map[netip.Addr]bool
	local       local
	started     map[tuple]bool // the connections that began while the rules changed
	picked      int
	kept        returned // those picked that kept the pod's address
}

var _ netlink.CustomConntrackFilter = (*selection)(nil)

// newSelection returns nil where both policies leave the family alone.
func newSelection(ctx context.Context, mode Mode, f policy.Family, former, now policy.Policy, sources []netip.Addr) *selection {
	s := &selection{ctx: ctx, mode: mode, former: verdictsOf(former, f), now: verdictsOf(now, f), sources: map[netip.Addr]bool{}, kept: returned{}}
	if !s.former.on && !s.now.on {
		return nil
	}
	for _, source := range sources {
		s.sources[source] = true
	}
	return s
}

// verdicts are what a policy does to the pods' connections of one family, which is nothing while the family is off.
type verdicts struct {
	policy.Matcher
	on     bool
	exempt netip.Prefix // destinations that never meet the policy
}

func verdictsOf(p policy.Policy, f policy.Family) verdicts {
	v := verdicts{Matcher: p.Matcher(f), on: slices.Contains(p.Settings.Families(), f)}
	if p.Settings.Sources == policy.SourcesPods {
		v.exempt = f.Multicast()
	}
	return v
}

func (v verdicts) of(destination netip.Addr) policy.Verdict {
	if !v.on || v.exempt.Contains(destination) {
		return policy.Keep
	}
	verdict, _ := v.Verdict(destination)
	return verdict
}

// The pace: after so many deletions the walk rests, which leaves the table's locks to traffic.
const (
	burst = 256
	rest  = 10 * time.Millisecond
)

// MatchConntrackFlow reports whether to end a connection.
func (s *selection) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if !s.wrong(flow) || s.ctx.Err() != nil {
		return false
	}
	if answers := tupleOf(flow.Reverse); answers.to.Addr() == tupleOf(flow.Forward).from.Addr() {
		s.kept[answers] = true
	}
	if s.picked++; s.picked%burst == 0 {
		time.Sleep(rest)
	}
	return true
}

// wrong compares what the connection carries with what the policy says of where it really goes, which behind a service is what
// answers and not what was called.
func (s *selection) wrong(flow *netlink.ConntrackFlow) bool {
	if s.mode == UDP && flow.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	source, ok1 := netip.AddrFromSlice(flow.Forward.SrcIP)
	called, ok2 := netip.AddrFromSlice(flow.Forward.DstIP)
	destination, ok3 := netip.AddrFromSlice(flow.Reverse.SrcIP)
	answered, ok4 := netip.AddrFromSlice(flow.Reverse.DstIP)
	source, called, destination, answered = source.Unmap(), called.Unmap(), destination.Unmap(), answered.Unmap()
	if !ok1 || !ok2 || !ok3 || !ok4 || !s.sources[source] || s.local.has(destination) {
		return false
	}
	if s.now.of(destination) == policy.Masquerade {
		return answered == source // any other address is right, or an egress gateway's
	}
	if !s.local.has(answered) {
		return false // it kept its address, or has one that no masquerading gives
	}
	// An address of the node is what the former policy gave, or no policy at all while the rules changed, or what a Service's own
	// rules give: to a pod that calls itself through one, and where the former policy would have kept the pod's.
	began := s.started[tupleOf(flow.Forward)] && called == destination
	return destination != source && (s.former.of(destination) == policy.Masquerade || began)
}
