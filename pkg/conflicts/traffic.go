package conflicts

import (
	"net/netip"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// traffic is what the policy says of one family: whose packets, and which destinations keep or lose the pod's address.
type traffic struct {
	family       policy.Family
	pods         []netip.Addr // sorted
	destinations []policy.Destination
	verdicts     map[netip.Prefix]policy.Verdict
}

// neither is the verdict of destinations whose treatment defeats nobody.
const neither policy.Verdict = ""

func newTraffic(q Query, family policy.Family) traffic {
	t := traffic{family: family, verdicts: map[netip.Prefix]policy.Verdict{}}
	for _, addr := range q.Sources {
		if addr = addr.Unmap(); policy.FamilyOf(addr) == family {
			t.pods = append(t.pods, addr)
		}
	}
	slices.SortFunc(t.pods, netip.Addr.Compare)
	for _, d := range undisputed(family) {
		t.verdicts[d.Prefix] = d.Verdict
	}
	for _, d := range q.Policy.Destinations(family) {
		if verdict, settled := t.verdicts[d.Prefix]; settled && verdict == neither {
			continue
		}
		t.verdicts[d.Prefix] = d.Verdict
		t.destinations = append(t.destinations, d)
	}
	everywhere := everywhere(family)
	t.destinations = append(t.destinations, policy.Destination{Prefix: everywhere, Verdict: t.verdicts[everywhere]})
	return t
}

// undisputed are the destinations on which the policy has no word or nobody could defeat it: multicast, and what no router
// forwards. What no prefix names is masqueraded.
func undisputed(family policy.Family) []policy.Destination {
	all := []policy.Destination{
		{Prefix: family.Multicast(), Verdict: neither},
		{Prefix: everywhere(family), Verdict: policy.Masquerade},
	}
	if family == policy.IPv6 {
		all = append(all, policy.Destination{Prefix: family.LinkLocal(), Verdict: neither})
	}
	return all
}

func everywhere(family policy.Family) netip.Prefix {
	if family == policy.IPv4 {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// verdict returns what the policy says of a prefix as a whole; longer prefixes inside may say something else.
func (t traffic) verdict(prefix netip.Prefix) policy.Verdict {
	verdict := neither
	ancestor(prefix, func(p netip.Prefix) (found bool) {
		verdict, found = t.verdicts[p]
		return found
	})
	return verdict
}

// meets reports whether packets within the scope have a destination with the verdict.
func (t traffic) meets(s scope, verdict policy.Verdict) bool {
	return slices.ContainsFunc(t.destinations, func(d policy.Destination) bool {
		if d.Verdict != verdict {
			return false
		}
		part, ok := s.part(d.Prefix)
		return ok && t.verdict(part) == verdict
	})
}

// ancestor asks about the prefix and all that contain it, the longest first, until the answer is yes. Its cost is bounded by
// the length of an address, so that ten thousand destinations can be compared with as many rules.
func ancestor(prefix netip.Prefix, ask func(netip.Prefix) bool) bool {
	for bits := prefix.Bits(); bits >= 0; bits-- {
		if p, err := prefix.Addr().Prefix(bits); err == nil && ask(p) {
			return true
		}
	}
	return false
}
