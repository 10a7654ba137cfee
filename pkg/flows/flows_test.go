package flows

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/conntrack"
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
func flowOf(protocol uint8, from, to, answers, answered string) *conntrack.Flow {
	at := func(address string, port uint16) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr(address), port)
	}
	return &conntrack.Flow{
		Original: conntrack.Tuple{Proto: protocol, Src: at(from, 1000), Dst: at(to, 53)},
		Reply:    conntrack.Tuple{Proto: protocol, Src: at(answers, 53), Dst: at(answered, 1000)},
	}
}

// sourcesOf are sources for which nothing was chosen.
func sourcesOf(addresses ...string) map[netip.Addr]policy.Packet {
	sources := map[netip.Addr]policy.Packet{}
	for _, address := range addresses {
		sources[netip.MustParseAddr(address)] = policy.Packet{Attached: true}
	}
	return sources
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
		flow         *conntrack.Flow
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
		"without addresses":                                    {&conntrack.Flow{}, false, false},
	} {
		for mode, want := range map[Mode]bool{Changed: c.changed, UDP: c.udp} {
			s := newSelection(mode, policy.IPv4, former.Decider(nil), now.Decider(nil), sourcesOf(podAddress))
			s.local = nodeOnly
			if got := s.wrong(c.flow); got != want {
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
		flow        *conntrack.Flow
		want        bool
	}{
		"IPv6 switched on":       {policy.IPv6, policyOf(v4), policyOf(dual), flowOf(udp, pod6, out6, out6, pod6), true},
		"IPv6 switched on, kept": {policy.IPv6, policyOf(v4), policyOf(dual, "2001:db9::/32"), flowOf(udp, pod6, out6, out6, pod6), false},
		"IPv6 switched off":      {policy.IPv6, policyOf(dual), policyOf(v4), flowOf(udp, pod6, out6, out6, node6), true},
		"multicast of pods":      {policy.IPv4, policyOf(v4, "224.0.0.0/4"), policyOf(v4), flowOf(udp, podAddress, "224.0.0.251", "224.0.0.251", podAddress), false},
		"multicast of all":       {policy.IPv4, policyOf(all, "224.0.0.0/4"), policyOf(all), flowOf(udp, podAddress, "224.0.0.251", "224.0.0.251", podAddress), true},
	} {
		s := newSelection(Changed, c.family, c.former.Decider(nil), c.now.Decider(nil), sourcesOf(podAddress, pod6))
		s.local = nodeOnly
		if got := s.wrong(c.flow); got != c.want {
			t.Errorf("%s: ended %v, want %v", name, got, c.want)
		}
	}
	if newSelection(Changed, policy.IPv6, policyOf(v4).Decider(nil), policyOf(v4).Decider(nil), nil) != nil {
		t.Error("a family that is off is looked at")
	}
}

// TestSelectionOfOptedOut: who opted out keeps its address, unless the policy is about all traffic.
func TestSelectionOfOptedOut(t *testing.T) {
	pods := policyOf(policy.DefaultSettings())
	all := pods
	all.Settings.Sources = policy.SourcesAll
	sources := map[netip.Addr]policy.Packet{netip.MustParseAddr(podAddress): {OptedOut: true}}
	for name, c := range map[string]struct {
		former, now policy.Policy
		carried     string
		want        bool
	}{
		"pods to all":           {pods, all, podAddress, true},
		"all to pods":           {all, pods, nodeAddress, true},
		"pods, the same":        {pods, pods, podAddress, false},
		"pods, somebody else's": {pods, pods, nodeAddress, false},
		"all, the same":         {all, all, nodeAddress, false},
	} {
		s := newSelection(Changed, policy.IPv4, c.former.Decider(nil), c.now.Decider(nil), sources)
		s.local = nodeOnly
		if got := s.wrong(flowOf(tcp, podAddress, "8.8.8.8", "8.8.8.8", c.carried)); got != c.want {
			t.Errorf("%s: ended %t, want %t", name, got, c.want)
		}
	}
}

// TestReturned: a connection that kept the pod's address is recognised when the peer's next packet brings it back, and no
// other connection of the same two is.
func TestReturned(t *testing.T) {
	kept := returned{}
	kept.add(flowOf(tcp, podAddress, "10.96.0.1", "8.8.8.8", podAddress))
	kept.add(flowOf(tcp, podAddress, "9.9.9.9", "9.9.9.9", nodeAddress)) // it was masqueraded, and cannot come back
	back := flowOf(tcp, "8.8.8.8", podAddress, podAddress, "8.8.8.8").Original
	back.Src, back.Dst = netip.AddrPortFrom(back.Src.Addr(), 53), netip.AddrPortFrom(back.Dst.Addr(), 1000)
	if len(kept) != 1 || !kept[back] {
		t.Errorf("%v, want %v", kept, back)
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
