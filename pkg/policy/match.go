package policy

import (
	"net/netip"
	"slices"
)

// Matcher looks up verdicts of one family by longest prefix.
type Matcher struct {
	verdicts map[netip.Prefix]Verdict
	lengths  []int // the prefix lengths that occur, longest first
}

// Matcher prepares the policy's destinations of a family for look-ups.
func (p Policy) Matcher(f Family) Matcher {
	m := Matcher{verdicts: map[netip.Prefix]Verdict{}}
	for _, d := range p.Destinations(f) {
		m.verdicts[d.Prefix] = d.Verdict
		m.lengths = append(m.lengths, d.Prefix.Bits())
	}
	slices.Sort(m.lengths)
	m.lengths = slices.Compact(m.lengths)
	slices.Reverse(m.lengths)
	return m
}

// Verdict returns the verdict for a destination and the prefix that gave it; an invalid prefix when none matches, and then the
// destination is masqueraded. It does not know which addresses are the node's own, which are never masqueraded.
func (m Matcher) Verdict(destination netip.Addr) (Verdict, netip.Prefix) {
	for _, length := range m.lengths {
		prefix, err := destination.Prefix(length)
		if verdict, ok := m.verdicts[prefix]; err == nil && ok {
			return verdict, prefix
		}
	}
	return Masquerade, netip.Prefix{}
}
