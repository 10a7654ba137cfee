package policy

import (
	"net/netip"
	"testing"
)

func addrs(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

func cidrs(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// TestDecide goes through the precedence, one question after the other, on a node with the addresses 192.0.2.1, .2 and 198.18.0.1.
func TestDecide(t *testing.T) {
	base := Policy{
		Settings:         Settings{Chain: DefaultChain, Sources: SourcesPods},
		NonMasquerade:    cidrs("10.0.0.0/8"),
		Masquerade:       cidrs("10.9.0.0/16"),
		OutputInterfaces: Interfaces{"eth*", "!eth9"},
		Egress: []Egress{
			{Destinations: cidrs("203.0.113.0/24", "10.9.9.0/24"), SourceAddresses: cidrs("192.0.2.0/24")},
			{Destinations: cidrs("203.0.113.128/25"), SourceAddresses: cidrs("100.64.0.0/10"), WhenMissing: MissingDrop},
			{Destinations: cidrs("198.51.100.0/24"), SourceAddresses: cidrs("100.64.0.0/10")},
		},
	}
	nodes, all := base, base
	nodes.Settings.NodeTraffic = true
	all.Settings.Sources = SourcesAll
	node := addrs("192.0.2.1", "192.0.2.2", "198.18.0.1", "fd00::1")
	for _, c := range []struct {
		name   string
		policy Policy
		to     string
		change func(*Packet)
		want   string // verdict, cause, and what else there is
	}{
		{"outside", base, "8.8.8.8", nil, "masquerade default"},
		{"inside", base, "10.1.1.1", nil, "keep prefix 10.0.0.0/8"},
		{"an exception inside", base, "10.9.1.1", nil, "masquerade prefix 10.9.0.0/16"},
		{"a group inside the exception", base, "10.9.9.1", nil, "translate prefix 10.9.9.0/24 group 1 to 192.0.2.2"},
		{"a group", base, "203.0.113.1", nil, "translate prefix 203.0.113.0/24 group 1 to 192.0.2.2"},
		{"another pod", base, "203.0.113.1", func(p *Packet) { p.Source = netip.MustParseAddr("10.244.0.4") }, "translate prefix 203.0.113.0/24 group 1 to 192.0.2.1"},
		{"a group whose addresses are elsewhere", base, "198.51.100.1", nil, "masquerade whenMissing 198.51.100.0/24 group 3"},
		{"and that drops", base, "203.0.113.200", nil, "drop whenMissing 203.0.113.128/25 group 2"},
		{"IPv6 is off", base, "2001:db8::1", nil, "keep family"},
		{"multicast", base, "224.0.0.1", nil, "keep multicast"},
		{"multicast of all", all, "224.0.0.1", nil, "masquerade default"},
		{"not attached", base, "8.8.8.8", func(p *Packet) { p.Attached = false }, "keep source"},
		{"the node's own", nodes, "8.8.8.8", func(p *Packet) { p.Attached = false }, "masquerade default"},
		{"opted out", nodes, "8.8.8.8", func(p *Packet) { p.Attached, p.OptedOut = false, true }, "keep source"},
		{"to the node", base, "203.0.113.1", func(p *Packet) { p.Local = true }, "keep local"},
		{"an interface left out", base, "8.8.8.8", func(p *Packet) { p.Output = "eth9" }, "keep interface"},
		{"an interface not meant", base, "203.0.113.1", func(p *Packet) { p.Output = "wg0" }, "keep interface"},
		{"a chosen address", base, "8.8.8.8", func(p *Packet) { p.Chosen = cidrs("198.18.0.1/32") }, "translate annotation to 198.18.0.1"},
		{"a chosen address in a group", base, "203.0.113.200", func(p *Packet) { p.Chosen = cidrs("198.18.0.1/32") }, "translate annotation 203.0.113.128/25 group 2 to 198.18.0.1"},
		{"a chosen address inside", base, "10.1.1.1", func(p *Packet) { p.Chosen = cidrs("198.18.0.1/32") }, "keep prefix 10.0.0.0/8"},
		{"a chosen address that the node lacks", base, "8.8.8.8", func(p *Packet) { p.Chosen = cidrs("192.168.0.0/16") }, "masquerade default"},
	} {
		t.Run(c.name, func(t *testing.T) {
			packet := Packet{Source: netip.MustParseAddr("10.244.0.5"), Destination: netip.MustParseAddr(c.to), Output: "eth0", Attached: true}
			if c.change != nil {
				c.change(&packet)
			}
			if got := c.policy.Decide(packet, node).String(); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

func TestPool(t *testing.T) {
	node := addrs("192.0.2.9", "fd00::1", "192.0.2.1", "192.0.2.9", "10.0.0.1")
	if got := Pool(IPv4, cidrs("192.0.2.0/28", "192.0.2.0/24", "fd00::/8"), node); len(got) != 2 || got[0] != node[2] || got[1] != node[0] {
		t.Error(got)
	}
	if got := Pool(IPv6, cidrs("192.0.2.0/24", "fd00::/8"), node); len(got) != 1 || got[0] != node[1] {
		t.Error(got)
	}
	var many []netip.Addr
	for a := netip.MustParseAddr("10.0.0.0"); len(many) < 2*MaxPool; a = a.Next() {
		many = append(many, a)
	}
	if got := Pool(IPv4, cidrs("10.0.0.0/8"), many); len(got) != MaxPool || got[MaxPool-1] != many[MaxPool-1] {
		t.Error(got)
	}
}

// TestChoose: addresses of pods, which follow one another, are spread evenly over a pool of any size.
func TestChoose(t *testing.T) {
	for _, first := range []string{"10.244.0.2", "fd00::2"} {
		for size := 1; size <= MaxPool; size++ {
			var pool []netip.Addr
			for a := netip.MustParseAddr("192.0.2.1"); len(pool) < size; a = a.Next() {
				pool = append(pool, a)
			}
			const pods = 256
			share, source := map[netip.Addr]int{}, netip.MustParseAddr(first)
			for range pods {
				share[Choose(pool, source)]++
				source = source.Next()
			}
			for _, address := range pool {
				if even := pods / size; share[address] < even*3/4 || share[address] > even*3/2 {
					t.Errorf("%s of %d has %d of %d", address, size, share[address], pods)
				}
			}
		}
	}
}

func TestInterfaces(t *testing.T) {
	for _, c := range []struct {
		patterns Interfaces
		yes, no  string
	}{
		{nil, "eth0", ""},
		{Interfaces{"eth0"}, "eth0", "eth01"},
		{Interfaces{"bond*", "eth0"}, "bond12", "wg0"},
		{Interfaces{"!wg0"}, "eth0", "wg0"},
		{Interfaces{"!wg*", "w*"}, "wlan0", "wg1"},
	} {
		if !c.patterns.Match(c.yes) || c.no != "" && c.patterns.Match(c.no) {
			t.Errorf("%q: %s %t, %s %t", c.patterns, c.yes, c.patterns.Match(c.yes), c.no, c.patterns.Match(c.no))
		}
	}
	for pattern, ok := range map[string]bool{
		"eth0": true, "bond*": true, "!wg0": true, "!wg*": true, "eth0.100": true, "abcdefghijklmno": true, "abcdefghijklmn*": true,
		"": false, "!": false, "*": false, "!*": false, "e*0": false, "eth+": false, "a b": false, "a/b": false, "!!a": false,
		"abcdefghijklmnop": false, "abcdefghijklmno*": false, `a"b`: false, "a:b": false,
	} {
		if err := ValidateInterface(pattern); (err == nil) != ok {
			t.Errorf("%q: %v", pattern, err)
		}
	}
}

func TestPodAnnotations(t *testing.T) {
	const masquerade, addresses = MasqueradeAnnotation, SourceAddressesAnnotation
	for _, c := range []struct {
		value                 PodAnnotations
		masquerade, addresses bool
	}{
		{"", true, false},
		{AllowAnnotations, true, false},
		{DenyAnnotations, false, false},
		{AllowedAnnotations(nil), false, false},
		{AllowedAnnotations([]string{masquerade}), true, false},
		{AllowedAnnotations([]string{addresses}), false, true},
		{AllowedAnnotations([]string{addresses, masquerade, addresses}), true, true},
	} {
		if c.value.Validate() != nil || c.value.Allows(masquerade) != c.masquerade || c.value.Allows(addresses) != c.addresses {
			t.Errorf("%q: %v, %t, %t", c.value, c.value.Validate(), c.value.Allows(masquerade), c.value.Allows(addresses))
		}
	}
	if PodAnnotations("ip-masq-agent/other").Validate() == nil {
		t.Error("an unknown annotation can be allowed")
	}
}
