// Package flows ends tracked connections whose source address contradicts the policy. Connection tracking decides about an
// address once, with the first packet, so a long-lived connection outlives every change of rules, and a pod's that began before
// the pod was behind the policy keeps the pod's address. One whose translated address left the node gets no answer any more.
//
// It refuses to touch a connection that is not a pod's, one to the node itself, and one that carries an address which the policy
// does not give: that is other software's doing, such as an egress gateway's, a Service's, or a NodePort's.
package flows

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/conntrack"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Mode says which connections may be ended.
type Mode string

// The modes of --conntrack-flush.
const (
	Changed Mode = "changed" // all whose verdict changed
	UDP     Mode = "udp"     // of those, UDP alone, and what is broken anyway: the peer of a TCP connection sees it break
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

func inetFamily(f policy.Family) uint8 {
	if f == policy.IPv6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// selection picks the connections to end.
type selection struct {
	mode        Mode
	former, now policy.Decider
	sources     map[netip.Addr]policy.Packet // with what is known of each one's packets
	local       local
	routes      *routes                  // nil: through which interface packets leave does not matter
	started     map[conntrack.Tuple]bool // the connections that began while the rules changed
}

// newSelection returns nil where both policies leave the family alone.
func newSelection(mode Mode, f policy.Family, former, now policy.Decider, sources map[netip.Addr]policy.Packet) *selection {
	on := func(d policy.Decider) bool { return slices.Contains(d.Settings.Families(), f) }
	if !on(former) && !on(now) {
		return nil
	}
	s := &selection{mode: mode, former: former, now: now, sources: sources}
	if len(former.OutputInterfaces)+len(now.OutputInterfaces) > 0 {
		s.routes = newRoutes()
	}
	return s
}

// wrong compares what the connection carries with what the policy says of where it really goes, which behind a service is what
// answers and not what was called.
func (s *selection) wrong(f *conntrack.Flow) bool {
	source, destination, carried := f.Original.Src.Addr(), f.Reply.Src.Addr(), f.Reply.Dst.Addr()
	packet, ours := s.sources[source]
	if !ours || !destination.IsValid() || !carried.IsValid() || s.local.has(destination) {
		return false
	}
	packet.Source, packet.Destination = source, destination
	if s.routes != nil {
		var known bool
		if packet.Output, known = s.routes.output(source, destination); !known {
			return false
		}
	}
	before, now := s.given(s.former, packet), s.given(s.now, packet)
	if carried != source && !s.has(carried) {
		// Nobody answers at an address that the node had and has no more, so there is nothing that the end of the connection breaks.
		return within(packet.Chosen, carried) || within(before.prefixes, carried) || within(now.prefixes, carried)
	}
	if s.mode == UDP && f.Original.Proto != unix.IPPROTO_UDP {
		return false
	}
	if carried == source {
		return now.Verdict != policy.Keep
	}
	// An address of the node is what the former policy gave, or no policy at all while the rules changed, or what a Service's own
	// rules give: to a pod that calls itself through one, and where the former policy would have kept the pod's.
	began := s.started[f.Original] && f.Original.Dst.Addr() == destination
	return destination != source && !now.right(carried, before) && (before.gave(carried) || began)
}

// has reports whether an address is one of the node's.
func (s *selection) has(address netip.Addr) bool { return s.local.has(address) || s.now.Has(address) }

// given is what a policy gives to a connection.
type given struct {
	policy.Outcome
	prefixes []netip.Prefix // of the addresses that it chooses from
}

func (s *selection) given(d policy.Decider, packet policy.Packet) given {
	if !d.Settings.PodAnnotations.Allows(policy.SourceAddressesAnnotation) {
		packet.Chosen = nil
	}
	out := d.Decide(packet)
	return given{out, d.SourceAddresses(packet, out)}
}

// gave reports whether a connection may have its address, which is one of the node's, by this.
func (g given) gave(carried netip.Addr) bool {
	return g.Verdict == policy.Masquerade || g.Verdict == policy.Translate && within(g.prefixes, carried)
}

// right reports whether a connection may keep an address of the node's. Every one of the prefixes is right, whichever a new
// connection would get. Masquerading gives the one that the kernel chooses, and none that was chosen before.
func (g given) right(carried netip.Addr, before given) bool {
	switch g.Verdict {
	case policy.Translate:
		return within(g.prefixes, carried)
	case policy.Masquerade:
		return within(g.prefixes, carried) || before.Verdict != policy.Translate || !before.gave(carried)
	case policy.Keep, policy.Drop:
	}
	return false
}

func within(prefixes []netip.Prefix, address netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(address) })
}
