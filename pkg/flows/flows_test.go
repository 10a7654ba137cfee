package flows

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

const (
	podAddress  = "10.244.0.5"
	nodeAddress = "192.0.2.1"
)

// policyOf keeps the pod's address to these prefixes.
func policyOf(s policy.Settings, keep ...string) policy.Policy {
	p := policy.Policy{Settings: s}
	for _, prefix := range keep {
		p.NonMasquerade = append(p.NonMasquerade, netip.MustParsePrefix(prefix))
	}
	return p
}

// flowOf is a tracked connection: who calls whom, who answers, and to whom.
func flowOf(protocol uint8, from, to, answers, answered string) *netlink.ConntrackFlow {
	flow := &netlink.ConntrackFlow{}
	flow.Forward = netlink.IPTuple{Protocol: protocol, SrcIP: net.ParseIP(from), DstIP: net.ParseIP(to), SrcPort: 1000, DstPort: 53}
	flow.Reverse = netlink.IPTuple{Protocol: protocol, SrcIP: net.ParseIP(answers), DstIP: net.ParseIP(answered), SrcPort: 53, DstPort: 1000}
	return flow
}

// nodeOnly is a node with one address per family.
var nodeOnly = local{netip.MustParsePrefix(nodeAddress + "/32"), netip.MustParsePrefix("2001:db8::1/128")}

const (
	udp  = unix.IPPROTO_UDP
	tcp  = unix.IPPROTO_TCP
	icmp = unix.IPPROTO_ICMP
)

// TestSelection: 198.51.100.0/24 was masqueraded and is kept now, 203.0.113.0/24 the other way round.
func TestSelection(t *testing.T) {
	former := policyOf(policy.DefaultSettings(), "10.0.0.0/8", "203.0.113.0/24", "192.0.2.1/32")
	now := policyOf(policy.DefaultSettings(), "10.0.0.0/8", "198.51.100.0/24")
	for name, c := range map[string]struct {
		flow         *netlink.ConntrackFlow
		changed, udp bool // ended in these modes
	}{
		"kept now, UDP":              {flowOf(udp, podAddress, "198.51.100.7", "198.51.100.7", nodeAddress), true, true},
		"kept now, TCP":              {flowOf(tcp, podAddress, "198.51.100.7", "198.51.100.7", nodeAddress), true, false},
		"kept now, ICMP":             {flowOf(icmp, podAddress, "198.51.100.7", "198.51.100.7", nodeAddress), true, false},
		"masqueraded now":            {flowOf(udp, podAddress, "203.0.113.7", "203.0.113.7", podAddress), true, true},
		"kept before and now":        {flowOf(udp, podAddress, "10.96.0.1", "10.96.0.1", podAddress), false, false},
		"masqueraded before and now": {flowOf(udp, podAddress, "8.8.8.8", "8.8.8.8", nodeAddress), false, false},
		"not what the former gave":   {flowOf(udp, podAddress, "198.51.100.7", "198.51.100.7", podAddress), false, false},
		"behind a service, kept now": {flowOf(udp, podAddress, "10.96.0.1", "198.51.100.7", nodeAddress), true, true},
		"behind a service, the same": {flowOf(udp, podAddress, "198.51.100.7", "10.244.0.9", podAddress), false, false},
		"of another pod":             {flowOf(udp, "10.244.0.6", "198.51.100.7", "198.51.100.7", nodeAddress), false, false},
		"to the pod":                 {flowOf(udp, "198.51.100.7", podAddress, podAddress, "198.51.100.7"), false, false},
		"to the node itself":         {flowOf(udp, podAddress, nodeAddress, nodeAddress, podAddress), false, false},
		"kept, and began before the pod was behind the policy": {flowOf(udp, podAddress, "8.8.8.8", "8.8.8.8", podAddress), true, true},
		"kept, by TCP, and began before the pod was":           {flowOf(tcp, podAddress, "8.8.8.8", "8.8.8.8", podAddress), true, false},
		"behind a service, kept, and began before the pod was": {flowOf(udp, podAddress, "10.96.0.1", "8.8.8.8", podAddress), true, true},
		"of an egress gateway":                                 {flowOf(udp, podAddress, "8.8.8.8", "8.8.8.8", "192.0.2.200"), false, false},
		"of an egress gateway, kept now":                       {flowOf(udp, podAddress, "198.51.100.7", "198.51.100.7", "192.0.2.200"), false, false},
		"of a service's own rules, kept before and now":        {flowOf(udp, podAddress, "10.96.0.1", "10.244.0.9", nodeAddress), false, false},
		"to itself through a service":                          {flowOf(udp, podAddress, "10.96.0.1", podAddress, nodeAddress), false, false},
		"the answer of a NodePort":                             {flowOf(udp, "198.51.100.7", nodeAddress, podAddress, nodeAddress), false, false},
		"to the node through a service":                        {flowOf(udp, podAddress, "10.96.0.1", nodeAddress, podAddress), false, false},
		"without addresses":                                    {&netlink.ConntrackFlow{}, false, false},
	} {
		for mode, want := range map[Mode]bool{Changed: c.changed, UDP: c.udp} {
			s := newSelection(context.Background(), mode, policy.IPv4, former, now, []netip.Addr{netip.MustParseAddr(podAddress)})
			s.local = nodeOnly
			if got := s.MatchConntrackFlow(c.flow); got != want {
				t.Errorf("%s, mode %s: ended %v, want %v", name, mode, got, want)
			}
		}
	}
}

// TestSelectionBySettings: what the prefixes do not tell.
func TestSelectionBySettings(t *testing.T) {
	v4 := policy.DefaultSettings()
	dual, all := v4, v4
	dual.IPv6, all.Sources = true, policy.SourcesAll
	const pod6, node6, out6 = "fd00::5", "2001:db8::1", "2001:db9::7"
	for name, c := range map[string]struct {
		family      policy.Family
		former, now policy.Policy
		flow        *netlink.ConntrackFlow
		want        bool
	}{
		"IPv6 switched on":       {policy.IPv6, policyOf(v4), policyOf(dual), flowOf(udp, pod6, out6, out6, pod6), true},
		"IPv6 switched on, kept": {policy.IPv6, policyOf(v4), policyOf(dual, "2001:db9::/32"), flowOf(udp, pod6, out6, out6, pod6), false},
		"IPv6 switched off":      {policy.IPv6, policyOf(dual), policyOf(v4), flowOf(udp, pod6, out6, out6, node6), true},
		"multicast of pods":      {policy.IPv4, policyOf(v4, "224.0.0.0/4"), policyOf(v4), flowOf(udp, podAddress, "224.0.0.251", "224.0.0.251", podAddress), false},
		"multicast of all":       {policy.IPv4, policyOf(all, "224.0.0.0/4"), policyOf(all), flowOf(udp, podAddress, "224.0.0.251", "224.0.0.251", podAddress), true},
	} {
		sources := []netip.Addr{netip.MustParseAddr(podAddress), netip.MustParseAddr(pod6)}
		s := newSelection(context.Background(), Changed, c.family, c.former, c.now, sources)
		s.local = nodeOnly
		if got := s.MatchConntrackFlow(c.flow); got != c.want {
			t.Errorf("%s: ended %v, want %v", name, got, c.want)
		}
	}
	if newSelection(context.Background(), Changed, policy.IPv6, policyOf(v4), policyOf(v4), nil) != nil {
		t.Error("a family that is off is looked at")
	}
}

// TestSelectionEndsWithItsContext: an agent that is to end does not go on to the end of the table.
func TestSelectionEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	s := newSelection(ctx, Changed, policy.IPv4, policyOf(policy.DefaultSettings()), policyOf(policy.DefaultSettings(), "8.0.0.0/8"), []netip.Addr{netip.MustParseAddr(podAddress)})
	s.local = nodeOnly
	flow := flowOf(udp, podAddress, "8.8.8.8", "8.8.8.8", nodeAddress)
	if !s.MatchConntrackFlow(flow) {
		t.Error("not ended before")
	}
	cancel()
	if s.MatchConntrackFlow(flow) {
		t.Error("ended afterwards")
	}
}

// TestReturned: a connection that kept the pod's address is recognised when the peer's next packet brings it back, and no
// other connection of the same two is.
func TestReturned(t *testing.T) {
	s := newSelection(context.Background(), Changed, policy.IPv4, policyOf(policy.DefaultSettings(), "8.0.0.0/8"), policyOf(policy.DefaultSettings()), []netip.Addr{netip.MustParseAddr(podAddress)})
	if !s.MatchConntrackFlow(flowOf(tcp, podAddress, "10.96.0.1", "8.8.8.8", podAddress)) {
		t.Fatal("not ended")
	}
	back := flowOf(tcp, "8.8.8.8", podAddress, podAddress, "8.8.8.8")
	back.Forward.SrcPort, back.Forward.DstPort = 53, 1000
	if !s.kept.MatchConntrackFlow(back) {
		t.Error("what came back is not recognised")
	}
	other := *back
	other.Forward.DstPort = 1001
	if s.kept.MatchConntrackFlow(&other) {
		t.Error("another connection is taken for it")
	}
	if err := (returned{}).keepEnded(context.Background(), policy.IPv4); err != nil {
		t.Error(err)
	}
}

func TestParseMode(t *testing.T) {
	for _, text := range []string{"changed", "udp", "none"} {
		if m, err := ParseMode(text); err != nil || string(m) != text {
			t.Errorf("%q: %q, %v", text, m, err)
		}
	}
	for _, text := range []string{"", "all", "UDP"} {
		if m, err := ParseMode(text); err == nil {
			t.Errorf("%q is taken for %q", text, m)
		}
	}
}
