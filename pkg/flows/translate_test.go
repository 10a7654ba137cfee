package flows

import (
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// rules are a policy, and the node's addresses that it may give to connections.
func rules(p policy.Policy, addresses ...string) policy.Decider {
	var node []netip.Addr
	for _, address := range addresses {
		node = append(node, netip.MustParseAddr(address))
	}
	return p.Decider(node)
}

// group is an egress group.
func group(destination, sources string, missing policy.WhenMissing) policy.Egress {
	return policy.Egress{
		Destinations:    []netip.Prefix{netip.MustParsePrefix(destination)},
		SourceAddresses: []netip.Prefix{netip.MustParsePrefix(sources)},
		WhenMissing:     missing,
	}
}

// TestSelectionOfTranslated: the group's addresses are those in 192.0.2.16/28 and 2001:db8::10/124, of which the node has two each.
// Each case has the connections that end, by the address that they carry.
func TestSelectionOfTranslated(t *testing.T) {
	s := policy.DefaultSettings()
	s.IPv6 = true
	with := func(groups ...policy.Egress) policy.Policy {
		p := policyOf(s)
		p.Egress = groups
		return p
	}
	in := func(sources4, sources6 string, missing policy.WhenMissing) policy.Policy {
		return with(group("203.0.113.0/24", sources4, missing), group("2001:db9::/32", sources6, missing))
	}
	none, keeps := with(), policyOf(s, "203.0.113.0/24", "2001:db9::/32")
	pool, drops := in("192.0.2.16/28", "2001:db8::10/124", ""), in("192.0.2.16/28", "2001:db8::10/124", policy.MissingDrop)
	other := in("192.0.2.32/28", "2001:db8::20/124", "")
	both := []string{"192.0.2.17", "192.0.2.18", "2001:db8::11", "2001:db8::12"}
	type family struct {
		name                                     string
		family                                   policy.Family
		pod, to, primary, first, second, gone, x string
	}
	families := []family{
		{"IPv4", policy.IPv4, podAddress, "203.0.113.7", "192.0.2.1", "192.0.2.17", "192.0.2.18", "192.0.2.19", "192.0.2.200"},
		{"IPv6", policy.IPv6, "fd00::5", "2001:db9::7", "2001:db8::1", "2001:db8::11", "2001:db8::12", "2001:db8::13", "2001:db8::200"},
	}
	const kept, primary, first, second, gone, foreign = "the pod's", "the primary", "the first", "the second", "a former", "somebody else's"
	for name, c := range map[string]struct {
		former, now policy.Decider
		wrong       []string // the addresses whose connections end
	}{
		"nothing changed":                   {rules(pool, both...), rules(pool, both...), []string{kept, gone}},
		"the group is new":                  {rules(none), rules(pool, both...), []string{kept, primary, gone}},
		"the group was kept":                {rules(keeps), rules(pool, both...), []string{kept, gone}},
		"the group is gone":                 {rules(pool, both...), rules(none), []string{kept, first, second, gone}},
		"the group is kept":                 {rules(pool, both...), rules(keeps), []string{first, second, gone}},
		"other addresses":                   {rules(pool, both...), rules(other, "192.0.2.33", "2001:db8::21"), []string{kept, first, second, gone}},
		"other addresses, none there":       {rules(pool, both...), rules(other), []string{kept, first, second, gone}},
		"an address came":                   {rules(pool, both[0], both[2]), rules(pool, both...), []string{kept, gone}},
		"the first address came":            {rules(pool), rules(pool, both...), []string{kept, primary, gone}},
		"the first address came, dropped":   {rules(drops), rules(drops, both...), []string{kept, gone}},
		"one of two is no more to be given": {rules(pool, both...), rules(pool, both[0], both[2]), []string{kept, gone}},
		"dropped from now on":               {rules(none), rules(drops), []string{kept, primary, first, second, gone}},
		"the last address went":             {rules(drops, both...), rules(drops), []string{kept, first, second, gone}},
	} {
		for _, f := range families {
			carried := map[string]string{kept: f.pod, primary: f.primary, first: f.first, second: f.second, gone: f.gone, foreign: f.x}
			for what, address := range carried {
				wrong := slices.Contains(c.wrong, what)
				for _, proto := range []uint8{udp, tcp} {
					for _, mode := range []Mode{Changed, UDP} {
						s := newSelection(mode, f.family, c.former, c.now, sourcesOf(f.pod))
						s.local = local{}
						for _, own := range []string{f.primary, f.first, f.second} {
							a := netip.MustParseAddr(own)
							s.local = append(s.local, netip.PrefixFrom(a, a.BitLen()))
						}
						// What left the node ends in every mode.
						want := wrong && (mode == Changed || proto == unix.IPPROTO_UDP || what == gone)
						if got := s.wrong(flowOf(proto, f.pod, f.to, f.to, address)); got != want {
							t.Errorf("%s, %s, protocol %d, mode %s: with %s address ended %t, want %t", name, f.name, proto, mode, what, got, want)
						}
					}
				}
			}
		}
	}
}

// TestSelectionOfChosen: what a pod's annotation chose goes before what a group chooses, for this pod alone.
func TestSelectionOfChosen(t *testing.T) {
	settings := policy.DefaultSettings()
	settings.PodAnnotations = policy.AllowedAnnotations([]string{policy.SourceAddressesAnnotation})
	p := policyOf(settings, "10.0.0.0/8")
	p.Egress = []policy.Egress{group("203.0.113.0/24", "192.0.2.16/28", "")}
	const another = "10.244.0.6"
	sources := sourcesOf(podAddress, another)
	sources[netip.MustParseAddr(podAddress)] = policy.Packet{Attached: true, Chosen: []netip.Prefix{netip.MustParsePrefix("192.0.2.48/28")}}
	for name, c := range map[string]struct {
		source, to, carried string
		before              []string // the node's addresses before; now they are 192.0.2.17 and 192.0.2.49
		want                bool
	}{
		"chosen":                             {podAddress, "203.0.113.7", "192.0.2.49", nil, false},
		"chosen, elsewhere":                  {podAddress, "8.8.8.8", "192.0.2.49", nil, false},
		"kept":                               {podAddress, "8.8.8.8", podAddress, nil, true},
		"kept where the policy keeps":        {podAddress, "10.96.0.1", podAddress, nil, false},
		"the group's while the chosen lacks": {podAddress, "203.0.113.7", "192.0.2.17", []string{"192.0.2.17"}, true},
		"masqueraded while the chosen lacks": {podAddress, "8.8.8.8", nodeAddress, []string{"192.0.2.17"}, true},
		"chosen and gone":                    {podAddress, "8.8.8.8", "192.0.2.50", nil, true},
		"another pod's, gone":                {another, "8.8.8.8", "192.0.2.50", nil, false},
		"another pod's":                      {another, "203.0.113.7", "192.0.2.17", nil, false},
	} {
		now := []string{"192.0.2.17", "192.0.2.49"}
		if c.before == nil {
			c.before = now
		}
		s := newSelection(Changed, policy.IPv4, rules(p, c.before...), rules(p, now...), sources)
		s.local = nodeOnly
		if got := s.wrong(flowOf(udp, c.source, c.to, c.to, c.carried)); got != c.want {
			t.Errorf("%s: ended %t, want %t", name, got, c.want)
		}
	}
}

// TestSelectionOfAnnotationsRefused: podAnnotations allowed the choice and does no more.
func TestSelectionOfAnnotationsRefused(t *testing.T) {
	allowed := policyOf(policy.DefaultSettings())
	allowed.Settings.PodAnnotations = policy.AllowedAnnotations([]string{policy.SourceAddressesAnnotation})
	denied := policyOf(policy.DefaultSettings())
	sources := map[netip.Addr]policy.Packet{netip.MustParseAddr(podAddress): {Attached: true, Chosen: []netip.Prefix{netip.MustParsePrefix("192.0.2.48/28")}}}
	for carried, want := range map[string]bool{"192.0.2.49": true, nodeAddress: false, podAddress: true} {
		s := newSelection(Changed, policy.IPv4, rules(allowed, "192.0.2.49"), rules(denied), sources)
		s.local = slices.Concat(nodeOnly, local{netip.MustParsePrefix("192.0.2.49/32")})
		if got := s.wrong(flowOf(udp, podAddress, "8.8.8.8", "8.8.8.8", carried)); got != want {
			t.Errorf("with %s ended %t, want %t", carried, got, want)
		}
	}
}
