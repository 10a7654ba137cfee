package status

import (
	"net/netip"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// CountPrefixes takes over what the counters say of each prefix. Every other destination has what is masqueraded and no prefix's, which
// on nftables is a part of what one rule counts.
func (s *Status) CountPrefixes() {
	type key struct {
		family  policy.Family
		prefix  netip.Prefix
		verdict policy.Verdict
	}
	type counts struct{ packets, bytes uint64 }
	of := map[key]counts{}
	rest, parts := map[policy.Family]counts{}, map[policy.Family]counts{}
	counted := map[policy.Family]bool{}
	for _, c := range s.Counters {
		if c.Verdict == nil {
			continue
		}
		if c.Prefix != nil {
			k := key{c.Family, *c.Prefix, *c.Verdict}
			of[k] = counts{of[k].packets + c.Packets, of[k].bytes + c.Bytes}
		}
		if *c.Verdict != policy.Masquerade {
			continue
		}
		switch {
		case c.Prefix == nil:
			sum := rest[c.Family]
			rest[c.Family], counted[c.Family] = counts{sum.packets + c.Packets, sum.bytes + c.Bytes}, true
		case c.Part:
			sum := parts[c.Family]
			parts[c.Family] = counts{sum.packets + c.Packets, sum.bytes + c.Bytes}
		}
	}
	for i := range s.Policy.Prefixes {
		p := &s.Policy.Prefixes[i]
		c, known := of[key{p.Family, p.Prefix, p.Verdict}]
		if p.Prefix.Bits() == 0 && p.Verdict == policy.Masquerade && counted[p.Family] {
			more, less := rest[p.Family], parts[p.Family]
			c, known = counts{more.packets - min(less.packets, more.packets), more.bytes - min(less.bytes, more.bytes)}, true
		}
		if known {
			p.Packets, p.Bytes = &c.packets, &c.bytes
		}
	}
}
