package conflicts

import (
	"net/netip"
	"slices"
)

// addrRange is all addresses from first to last, both of one family.
type addrRange struct{ first, last netip.Addr }

// ranges are ranges in ascending order that do not overlap. They are never changed in place: groups of packets share them.
type ranges []addrRange

// rangeOf returns the addresses of a prefix.
func rangeOf(prefix netip.Prefix) addrRange {
	prefix = prefix.Masked()
	last := prefix.Addr().AsSlice()
	for bit := prefix.Bits(); bit < len(last)*8; bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	end, _ := netip.AddrFromSlice(last)
	return addrRange{prefix.Addr(), end}
}

// rangesOf sorts ranges and joins those that overlap.
func rangesOf(list ...addrRange) ranges {
	slices.SortFunc(list, func(a, b addrRange) int { return a.first.Compare(b.first) })
	var all ranges
	for _, r := range list {
		if n := len(all); n > 0 && !all[n-1].last.Less(r.first) {
			if all[n-1].last.Less(r.last) {
				all[n-1].last = r.last
			}
			continue
		}
		all = append(all, r)
	}
	return all
}

// from returns the index of the first range that does not end before addr.
func (all ranges) from(addr netip.Addr) int {
	i, _ := slices.BinarySearchFunc(all, addr, func(r addrRange, addr netip.Addr) int { return r.last.Compare(addr) })
	return i
}

func (all ranges) contain(addr netip.Addr) bool {
	i := all.from(addr)
	return i < len(all) && !addr.Less(all[i].first)
}

// split cuts the ranges into the addresses that others have too and the rest.
func (all ranges) split(others ranges) (both, rest ranges) {
	if !all.overlap(others) {
		return nil, all
	}
	rest = make(ranges, 0, len(all)+len(others))
	for _, other := range others {
		start := all.from(other.first)
		rest = append(rest, all[:start]...)
		all = all[start:]
		for len(all) > 0 && !other.last.Less(all[0].first) {
			r := all[0]
			if r.first.Less(other.first) {
				rest = append(rest, addrRange{r.first, other.first.Prev()})
				r.first = other.first
			}
			if other.last.Less(r.last) {
				both = append(both, addrRange{r.first, other.last})
				all = append(ranges{{other.last.Next(), r.last}}, all[1:]...)
				break
			}
			both = append(both, r)
			all = all[1:]
		}
	}
	return both, append(rest, all...)
}

// overlap reports whether an address is in both.
func (all ranges) overlap(others ranges) bool {
	if len(others) > len(all) {
		all, others = others, all
	}
	return slices.ContainsFunc(others, func(other addrRange) bool {
		i := all.from(other.first)
		return i < len(all) && !other.last.Less(all[i].first)
	})
}

func (all ranges) equal(others ranges) bool {
	if len(all) != len(others) {
		return false
	}
	return len(all) == 0 || &all[0] == &others[0] || slices.Equal(all, others)
}

// String is a prefix where the range is one.
func (r addrRange) String() string {
	for bits := range r.first.BitLen() + 1 {
		if prefix := netip.PrefixFrom(r.first, bits); prefix.Masked() == prefix && rangeOf(prefix) == r {
			return prefix.String()
		}
	}
	return r.first.String() + "-" + r.last.String()
}
