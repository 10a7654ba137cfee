package policy

import (
	"fmt"
	"net/netip"
	"sort"
)

// Verdict is what happens to the source address of a new connection.
type Verdict string

// The verdicts.
const (
	Keep       Verdict = "keep"
	Masquerade Verdict = "masquerade" // with the address that the kernel chooses by the route
	Translate  Verdict = "translate"  // with an address that the policy chooses: an egress group's, or an annotation's
	Drop       Verdict = "drop"       // the packet does not leave, because the node lacks the addresses chosen for it
)

// Destination is one prefix and the verdict for what is bound there: Keep, Masquerade or Translate.
type Destination struct {
	Prefix  netip.Prefix `json:"prefix"`
	Verdict Verdict      `json:"verdict"`
	// Group is the number of the egress group that translates, counted from 1 in the policy's order; 0 with other verdicts.
	Group int `json:"group,omitempty"`
}

// String returns the prefix and the verdict.
func (d Destination) String() string {
	if d.Group > 0 {
		return fmt.Sprintf("%s %s %d", d.Prefix, d.Verdict, d.Group)
	}
	return fmt.Sprintf("%s %s", d.Prefix, d.Verdict)
}

// Destinations lists the policy's prefixes of one family so that the first match is the most specific one. What no prefix
// matches is masqueraded.
//
// Without exceptions all verdicts are Keep, any order is right, and it is the user's. With exceptions a prefix moves up to
// just before the first one that contains it and no further, so that the list still reads like the user's file.
func (p Policy) Destinations(f Family) []Destination {
	most := 1 + len(p.NonMasquerade) + len(p.Masquerade)
	for _, e := range p.Egress {
		most += len(e.Destinations)
	}
	all := make([]Destination, 0, most)
	seen := make(map[netip.Prefix]bool, most)
	add := func(prefix netip.Prefix, v Verdict, group int) {
		if FamilyOf(prefix.Addr()) == f && !seen[prefix] {
			seen[prefix] = true
			all = append(all, Destination{prefix, v, group})
		}
	}
	if !p.masqLinkLocal(f) {
		add(f.LinkLocal(), Keep, 0)
	}
	for _, prefix := range p.NonMasquerade {
		add(prefix, Keep, 0)
	}
	exceptions := len(all)
	for _, prefix := range p.Masquerade {
		add(prefix, Masquerade, 0)
	}
	for i, e := range p.Egress {
		for _, prefix := range e.Destinations {
			add(prefix, Translate, i+1)
		}
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
	sort.Stable(&byPlace{all, place})
}

// byPlace sorts destinations by their places. It is no slices.SortStableFunc, because that is compiled anew for every type, which
// the plugin would have to carry.
type byPlace struct {
	all   []Destination
	place map[netip.Prefix]int
}

func (b *byPlace) Len() int      { return len(b.all) }
func (b *byPlace) Swap(i, j int) { b.all[i], b.all[j] = b.all[j], b.all[i] }
func (b *byPlace) Less(i, j int) bool {
	p, q := b.all[i].Prefix, b.all[j].Prefix
	if b.place[p] != b.place[q] {
		return b.place[p] < b.place[q]
	}
	return p.Bits() > q.Bits()
}
