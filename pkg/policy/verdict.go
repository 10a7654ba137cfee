package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// Verdict is what happens to the source address of a new connection.
type Verdict string

// The two verdicts.
const (
	Keep       Verdict = "keep"
	Masquerade Verdict = "masquerade"
)

// Destination is one prefix and the verdict for what is bound there.
type Destination struct {
	Prefix  netip.Prefix `json:"prefix"`
	Verdict Verdict      `json:"verdict"`
}

// String returns the prefix and the verdict.
func (d Destination) String() string { return fmt.Sprintf("%s %s", d.Prefix, d.Verdict) }

// Destinations lists the policy's prefixes of one family so that the first match is the most specific one. What no prefix
// matches is masqueraded.
//
// Without exceptions all verdicts are Keep, any order is right, and it is the user's. With exceptions a prefix moves up to
// just before the first one that contains it and no further, so that the list still reads like the user's file.
func (p Policy) Destinations(f Family) []Destination {
	most := 1 + len(p.NonMasquerade) + len(p.Masquerade)
	all := make([]Destination, 0, most)
	seen := make(map[netip.Prefix]bool, most)
	add := func(prefix netip.Prefix, v Verdict) {
		if FamilyOf(prefix.Addr()) == f && !seen[prefix] {
			seen[prefix] = true
			all = append(all, Destination{prefix, v})
		}
	}
	if !p.masqLinkLocal(f) {
		add(f.LinkLocal(), Keep)
	}
	for _, prefix := range p.NonMasquerade {
		add(prefix, Keep)
	}
	exceptions := len(all)
	for _, prefix := range p.Masquerade {
		add(prefix, Masquerade)
	}
	if len(all) > exceptions {
		specificFirst(all)
	}
	return all
}

// specificFirst moves every prefix before those that contain it. The place of a prefix is the smallest index among itself
// and all that contain it; in one place the longer prefix goes first. Every containing prefix is found by masking, so the
// cost does not grow with the square of the list.
func specificFirst(all []Destination) {
	index := make(map[netip.Prefix]int, len(all))
	for i, d := range all {
		index[d.Prefix] = i
	}
	place := make(map[netip.Prefix]int, len(all))
	for i, d := range all {
		place[d.Prefix] = i
		for bits := d.Prefix.Bits() - 1; bits >= 0; bits-- {
			parent, err := d.Prefix.Addr().Prefix(bits)
			if j, ok := index[parent]; err == nil && ok && j < place[d.Prefix] {
				place[d.Prefix] = j
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Destination) int {
		return cmp.Or(cmp.Compare(place[a.Prefix], place[b.Prefix]), cmp.Compare(b.Prefix.Bits(), a.Prefix.Bits()))
	})
}
