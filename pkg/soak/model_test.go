package soak

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// model is what the node should be like.
type model struct {
	backend string // as asked for: iptables or nftables
	ipv6    bool
	keep    []string // prefixes of both families, in the user's order
	bad     bool     // the file is bad now, and keep is of the last good one
	pods    map[string]*pod
}

// pod is an attachment that the runtime knows.
type pod struct {
	attachment.Owner
	addrs []netip.Addr
	netns *netnstest.Space
}

// table is our rules in the kernel, of one family.
type table struct {
	Roots int      // rules that lead from the hook to ours
	Keep  []string // destinations that see the pod's own address; in iptables in their order
	Pods  []string // "address owner", sorted
	Ends  bool     // what matches nothing is masqueraded
}

// state is all that is compared.
type state struct {
	IPv4, IPv6 *table   // nil: no rule of this project
	Records    []string // owners
	Others     string   // what stands in the other kinds of rules
}

// want computes the state that the model asks for.
func (m *model) want() state {
	s := state{IPv4: m.table(netip.Addr.Is4, "169.254.0.0/16", "224.0.0.0/4"), Records: []string{}}
	if m.ipv6 {
		s.IPv6 = m.table(netip.Addr.Is6, "fe80::/10", "ff00::/8")
	}
	for _, p := range m.pods {
		s.Records = append(s.Records, string(p.ID()))
	}
	slices.Sort(s.Records)
	return s
}

func (m *model) table(family func(netip.Addr) bool, linkLocal, multicast string) *table {
	t := &table{Roots: 1, Keep: []string{linkLocal}, Pods: []string{}, Ends: true}
	for _, prefix := range m.keep {
		if family(netip.MustParsePrefix(prefix).Addr()) {
			t.Keep = append(t.Keep, prefix)
		}
	}
	for _, p := range m.pods {
		for _, a := range p.addrs {
			if family(a) {
				t.Pods = append(t.Pods, fmt.Sprintf("%s %s", a, p.ID()))
			}
		}
	}
	slices.Sort(t.Pods)
	if m.backend == "nftables" {
		// Multicast is an element there, and in iptables part of each pod's rule.
		t.Keep = append(t.Keep, multicast)
		slices.Sort(t.Keep)
	}
	return t
}

// config is the text of the file, which names a list of both families.
func (m *model) config() string {
	list := slices.Clone(m.keep)
	if !m.ipv6 {
		list = slices.DeleteFunc(list, func(p string) bool { return strings.Contains(p, ":") })
	}
	return fmt.Sprintf("resyncInterval: 300ms\nnonMasqueradeCIDRs: [%s]\n", "'"+strings.Join(list, "', '")+"'")
}

// prefixes are what a config may list. None touches another, so that nothing can be merged.
var prefixes = []string{
	"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "198.18.0.0/15", "203.0.113.0/24", "fc00::/7", "2001:db8::/32", "2002::/16",
}
