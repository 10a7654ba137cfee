package conflicts

import (
	"net/netip"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// traffic is what the policy says about the pods' connections of one family.
type traffic struct {
	family      policy.Family
	pods        []netip.Addr // sorted
	kept        ranges       // destinations that must see the pod's own address
	masqueraded ranges       // destinations that must see the node's
	chosen      ranges       // destinations of egress groups, that must see a chosen address or nothing at all
	leaving     match        // by the interfaces through which packets are masqueraded
}

// unforwarded are destinations that no router forwards to, or about which the policy says nothing (multicast).
var unforwarded = map[policy.Family][]netip.Prefix{
	policy.IPv4: {policy.IPv4.Multicast(), netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("255.255.255.255/32")},
	policy.IPv6: {policy.IPv6.Multicast(), policy.IPv6.LinkLocal(), netip.MustParsePrefix("::/127")},
}

func newTraffic(q Query, family policy.Family) traffic {
	t := traffic{family: family}
	for _, addr := range q.Sources {
		if addr = addr.Unmap(); policy.FamilyOf(addr) == family {
			t.pods = append(t.pods, addr)
		}
	}
	slices.SortFunc(t.pods, netip.Addr.Compare)
	t.pods = slices.Compact(t.pods)
	t.kept, t.masqueraded, t.chosen = divide(family, q.Policy.Destinations(family))
	meant, excluded := q.Policy.OutputInterfaces.Split()
	if len(meant) > 0 {
		t.leaving = append(t.leaving, condition{about: output, interfaces: meant})
	}
	if len(excluded) > 0 {
		t.leaving = append(t.leaving, condition{about: output, interfaces: excluded, not: true})
	}
	return t
}

func everywhere(family policy.Family) netip.Prefix {
	if family == policy.IPv4 {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// divide cuts all addresses by verdict: that of the longest prefix which contains them. What no prefix contains is masqueraded.
func divide(family policy.Family, destinations []policy.Destination) (kept, masqueraded, chosen ranges) {
	var nowhere []addrRange
	for _, prefix := range unforwarded[family] {
		nowhere = append(nowhere, rangeOf(prefix))
	}
	nested := append([]policy.Destination{{Prefix: everywhere(family), Verdict: policy.Masquerade}}, destinations...)
	slices.SortStableFunc(nested, func(a, b policy.Destination) int {
		if c := a.Prefix.Masked().Addr().Compare(b.Prefix.Masked().Addr()); c != 0 {
			return c
		}
		return a.Prefix.Bits() - b.Prefix.Bits()
	})
	verdicts := map[policy.Verdict]*ranges{policy.Keep: &kept, policy.Masquerade: &masqueraded, policy.Translate: &chosen}
	next := rangeOf(everywhere(family)).first // behind what has its verdict
	give := func(until netip.Addr, verdict policy.Verdict) {
		if next.IsValid() && !until.Less(next) {
			*verdicts[verdict] = append(*verdicts[verdict], addrRange{next, until})
			next = until.Next()
		}
	}
	var around []policy.Destination // prefixes that contain each other, the innermost last
	leave := func(until func(addrRange) bool) {
		for len(around) > 0 && until(rangeOf(around[len(around)-1].Prefix)) {
			inner := around[len(around)-1]
			give(rangeOf(inner.Prefix).last, inner.Verdict)
			around = around[:len(around)-1]
		}
	}
	for _, d := range nested {
		r := rangeOf(d.Prefix)
		leave(func(outer addrRange) bool { return outer.last.Less(r.first) })
		if len(around) > 0 && next.IsValid() && next.Less(r.first) {
			give(r.first.Prev(), around[len(around)-1].Verdict)
		}
		around = append(around, d)
	}
	leave(func(addrRange) bool { return true })
	for _, of := range verdicts {
		_, *of = rangesOf(*of...).split(rangesOf(nowhere...))
	}
	return kept, masqueraded, chosen
}

// translated are the destinations that must not see the pod's own address.
func (t traffic) translated() ranges { return rangesOf(slices.Concat(t.masqueraded, t.chosen)...) }

// first is what a search begins with: packets of all pods to all destinations but the node. What leaves by an interface that the
// policy leaves out may be translated by whoever wants to, unless the policy names its destination as one to keep.
func (t traffic) first(n node) []packets {
	bound := func(to ranges) packets {
		_, to = to.split(n.local())
		return packets{pods: t.pods, anyPod: len(t.pods) == 0, to: to}
	}
	if t.leaving == nil {
		return []packets{bound(rangesOf(slices.Concat(t.kept, t.masqueraded, t.chosen)...))}
	}
	leaving, _ := t.leaving.split(n, bound(t.translated()))
	return append(leaving, bound(t.kept))
}

// certainly reports whether there are packets among these, beyond doubt, to one of the destinations.
func certainly(groups []packets, to ranges) bool {
	return slices.ContainsFunc(groups, func(p packets) bool { return !p.doubtful && p.to.overlap(to) })
}
