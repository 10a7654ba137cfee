package nftables

import (
	"cmp"
	"encoding/binary"
	"net/netip"
)

// point is an address as a number, IPv4 in its IPv6-mapped form: both families are computed alike, and ten thousand are sorted
// in a millisecond.
type point struct{ high, low uint64 }

func pointOf(a netip.Addr) point {
	b := a.As16()
	return point{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// addr is the reverse of pointOf.
func (p point) addr(is4 bool) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], p.high)
	binary.BigEndian.PutUint64(b[8:], p.low)
	if is4 {
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return netip.AddrFrom16(b)
}

func (p point) compare(q point) int {
	if p.high != q.high {
		return cmp.Compare(p.high, q.high)
	}
	return cmp.Compare(p.low, q.low)
}

// next returns the point after p. The last of all has none; callers do not ask for it.
func (p point) next() point {
	p.low++
	if p.low == 0 {
		p.high++
	}
	return p
}

func (p point) previous() point {
	if p.low == 0 {
		p.high--
	}
	p.low--
	return p
}

// lastOf returns the last point of a prefix.
func lastOf(p netip.Prefix) point {
	from, free := pointOf(p.Addr()), uint(p.Addr().BitLen()-p.Bits())
	if free > 64 {
		return point{from.high | (1<<(free-64) - 1), ^uint64(0)}
	}
	return point{from.high, from.low | (1<<free - 1)}
}

// last returns the last address of a prefix.
func last(p netip.Prefix) netip.Addr { return lastOf(p).addr(p.Addr().Is4()) }
