package conflicts

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
)

// Here is how nf_tables holds what iptables-nft wrote in the form of iptables' extensions. It is read only where iptables-nft
// refuses to print a chain because of a native rule in it.

func (r *reading) extension(e nfnl.Attributes) {
	info := e.Find(unix.NFTA_MATCH_INFO)
	switch name := e.Text(unix.NFTA_MATCH_NAME); name {
	case "comment":
		text, _, _ := strings.Cut(string(info), "\x00")
		r.comment = text
	case "addrtype":
		r.addressType(info)
	case "mark": // xt_mark_mtinfo1: mark, mask, invert
		if len(info) >= 9 {
			f := field{kind: markField, mask: info[4:8]}
			r.between(f, info[:4], info[:4], info[8] != 0)
			return
		}
		r.add("", condition{})
	case "iprange":
		r.addressRange(info)
	case "tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmp6", "multiport", "statistic", "limit":
		r.add("", condition{about: some})
	default:
		r.add("", condition{})
	}
}

// addressType reads xt_addrtype_info_v1: types of the source, of the destination, flags.
func (r *reading) addressType(info []byte) {
	const (
		unicast, local                  = 1 << unix.RTN_UNICAST, 1 << unix.RTN_LOCAL
		invertSource, invertDestination = 1, 2
		limitIn, limitOut               = 4, 8
	)
	if len(info) < 8 {
		r.add("", condition{})
		return
	}
	flags := binary.NativeEndian.Uint32(info[4:])
	for _, one := range []struct {
		name   string
		types  uint16
		invert uint32
	}{
		{"fib saddr type", binary.NativeEndian.Uint16(info), invertSource},
		{"fib daddr type", binary.NativeEndian.Uint16(info[2:]), invertDestination},
	} {
		not := flags&one.invert != 0
		c := constant(one.types&unicast != 0)
		c.not = c.not != not
		switch {
		case one.types == 0:
		case one.types&unicast != 0 && flags&(limitIn|limitOut) != 0:
			r.add("", condition{})
		case one.types == local:
			r.add(one.name+" "+unequal(not)+"local", c)
		default:
			r.add("", c)
		}
	}
}

// addressRange reads xt_iprange_mtinfo: four addresses of 16 bytes, flags.
func (r *reading) addressRange(info []byte) {
	if len(info) < 65 {
		r.add("", condition{})
		return
	}
	size := r.family.Bits() / 8
	for i, about := range []subject{source, destination} {
		if info[64]&(1<<i) == 0 {
			continue
		}
		first, _ := netip.AddrFromSlice(info[32*i:][:size])
		last, _ := netip.AddrFromSlice(info[32*i+16:][:size])
		r.add("", condition{about: about, addresses: ranges{{first, last}}, not: info[64]&(0x10<<i) != 0})
	}
}

func (r *reading) target(e nfnl.Attributes) {
	name, info := e.Text(unix.NFTA_TARGET_NAME), e.Find(unix.NFTA_TARGET_INFO)
	a := arguments{}
	a.act(false, []string{name, ""})
	switch {
	case name == "MARK" && len(info) >= 8: // xt_mark_tginfo2: mark, mask
		r.marks, r.mark, r.markMask = true, number(info[:4]), number(info[4:8])
	case name == "CT" && len(info) >= 2: // xt_ct_target_info: flags
		r.untracks = r.untracks || binary.NativeEndian.Uint16(info)&1 != 0
	default:
		r.marks, r.markUnknown, r.untracks = r.marks || a.marks, r.markUnknown || a.marks, r.untracks || a.untracks
	}
	if a.action != pass {
		r.masquerades, r.queues = a.masquerades, a.queues
		r.action = a.action
	}
	r.say("%s", name)
}
