package policy

import (
	"net/netip"
	"slices"
)

// Matcher looks up destinations of one family by longest prefix.
type Matcher struct {
	destinations map[netip.Prefix]Destination
	lengths      []int // the prefix lengths that occur, longest first
}

// Matcher prepares the policy's destinations of a family for look-ups.
func (p Policy) Matcher(f Family) Matcher {
	m := Matcher{destinations: map[netip.Prefix]Destination{}}
	for _, d := range p.Destinations(f) {
		m.destinations[d.Prefix] = d
		m.lengths = append(m.lengths, d.Prefix.Bits())
	}
	slices.Sort(m.lengths)
	m.lengths = slices.Compact(m.lengths)
	slices.Reverse(m.lengths)
	return m
}

// Match returns the most specific prefix that contains a destination, with its verdict. Where none does, found is false and the
// verdict is Masquerade. It does not know which addresses are the node's own, which are never masqueraded.
func (m Matcher) Match(destination netip.Addr) (d Destination, found bool) {
	for _, length := range m.lengths {
		prefix, err := destination.Prefix(length)
		if d, ok := m.destinations[prefix]; err == nil && ok {
			return d, true
		}
	}
	return Destination{Verdict: Masquerade}, false
}
