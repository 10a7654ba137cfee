package conflicts

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// compare reads a comparison of a register with a constant.
func (r *reading) compare(c *expr.Cmp) {
	not := c.Op == expr.CmpOpNeq
	if !not && c.Op != expr.CmpOpEq || !r.condition(r.registers[c.Register], c.Data, not) {
		r.beyond()
	}
}

// condition adds one comparison to the match and reports whether it is understood.
func (r *reading) condition(f field, data []byte, not bool) bool {
	switch f.kind {
	case addressField:
		return r.addressIs(f, data, not)
	case markField:
		return r.markIs(f, data, not)
	case localField:
		return number(data) == unix.RTN_LOCAL && r.localIs(f.source, not)
	case protocolField:
		return r.protocolIs(data, not)
	case outField:
		return string(bytes.TrimRight(data, "\x00")) == "lo" && r.loopbackIs(not)
	}
	return false
}

func (r *reading) addressIs(f field, data []byte, not bool) bool {
	bits, ok := prefixBits(f, data)
	if !ok {
		return false
	}
	raw := make([]byte, r.match.family.Bits()/8)
	copy(raw, data)
	addr, _ := netip.AddrFromSlice(raw)
	a := address{netip.PrefixFrom(addr, bits).Masked(), not}
	protocol := "ip"
	if r.match.family == policy.IPv6 {
		protocol = "ip6"
	}
	if f.source {
		r.match.sources = append(r.match.sources, a)
		r.say("%s saddr %s%s", protocol, unequal(not), a.prefix)
		return true
	}
	r.match.destinations = append(r.match.destinations, a)
	r.say("%s daddr %s%s", protocol, unequal(not), a.prefix)
	return true
}

// prefixBits is the length of the prefix that a mask or the loaded bytes stand for; a mask with holes stands for none.
func prefixBits(f field, data []byte) (int, bool) {
	mask := f.mask
	if mask == nil {
		mask = bytes.Repeat([]byte{0xff}, f.size)
	}
	if len(data) != f.size || len(mask) != f.size {
		return 0, false
	}
	bits, ended := 0, false
	for i := range 8 * f.size {
		set := mask[i/8]&(0x80>>(i%8)) != 0
		if set && ended {
			return 0, false
		}
		if ended = !set; set {
			bits++
		}
	}
	return bits, true
}

func (r *reading) markIs(f field, data []byte, not bool) bool {
	if len(data) != 4 {
		return false
	}
	wanted := number(data)
	r.match.marked(wanted, not)
	if f.mask == nil {
		r.say("meta mark %s%#x", unequal(not), wanted)
		return true
	}
	relation := "=="
	if not {
		relation = "!="
	}
	r.say("meta mark & %#x %s %#x", number(f.mask), relation, wanted)
	return true
}

func (r *reading) localIs(source, not bool) bool {
	r.match.local(not)
	which := "daddr"
	if source {
		which = "saddr"
	}
	r.say("fib %s type %slocal", which, unequal(not))
	return true
}

func (r *reading) loopbackIs(not bool) bool {
	r.match.loopback(not)
	r.say("oifname %s%q", unequal(not), "lo")
	return true
}

func (r *reading) protocolIs(data []byte, not bool) bool {
	if not || len(data) != 1 {
		return false
	}
	switch data[0] {
	case unix.NFPROTO_IPV4:
		r.match.family = policy.IPv4
	case unix.NFPROTO_IPV6:
		r.match.family = policy.IPv6
	}
	return true
}

// The bits of xt_addrtype_info_v1.flags.
const (
	invertSource = 1 << iota
	invertDestination
	limitInterfaceIn
	limitInterfaceOut
)

// addressType reads the match addrtype of iptables-nft.
func (r *reading) addressType(info *xt.AddrTypeV1) {
	if info.Flags&(limitInterfaceIn|limitInterfaceOut) != 0 {
		r.beyond()
	}
	r.oneType(true, info.Source, info.Flags&invertSource != 0)
	r.oneType(false, info.Dest, info.Flags&invertDestination != 0)
}

func (r *reading) oneType(source bool, types uint16, not bool) {
	switch xt.AddrTypeFlags(types) {
	case 0:
	case xt.AddrTypeLocal:
		r.localIs(source, not)
	default:
		r.beyond()
	}
}

// mark reads the match mark of iptables-nft before it had a native form: mark, mask, invert (xt_mark_mtinfo1).
func (r *reading) mark(m *expr.Match) bool {
	info, ok := m.Info.(*xt.Unknown)
	if m.Name != "mark" || !ok || len(*info) < 9 {
		return false
	}
	raw := []byte(*info)
	return r.markIs(field{mask: raw[4:8]}, raw[:4], raw[8] != 0)
}

func unequal(not bool) string {
	if not {
		return "!= "
	}
	return ""
}

// number reads a value that the kernel keeps in the machine's order.
func number(data []byte) uint32 {
	if len(data) != 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(data)
}
