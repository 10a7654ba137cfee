package conflicts

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// field is what a rule of nf_tables loads into a register: a part of a packet, or what is known beside it.
type field struct {
	kind  fieldKind
	name  string // as nft writes it
	size  int    // bytes in the register
	value []byte // of constantField
	mask  []byte // the bits that are looked at; nil: all
	xor   []byte // the bits that are turned then, of the mark
	bits  int    // of a whole address
}

type fieldKind int

const (
	unknownField     fieldKind = iota
	someField                  // differs between the packets of one pod to one destination: ports, chance
	absentField                // what a forwarded packet has not: comparing it with anything ends the rule
	constantField              // what all first packets of pods' connections have in common
	sourceField                // the pod's address, or the first bytes of it
	destinationField           //
	inputField                 // name of an interface
	outputField                //
	inputIndexField            // number of an interface
	outputIndexField           //
	markField                  //
	protocolField              // differs between the packets of one pod to one destination, like the next
	portField                  // of the destination
)

// load puts into a register what an expression takes.
func (r *reading) load(name string, e nfnl.Attributes) {
	switch name {
	case "meta":
		if e.Find(unix.NFTA_META_SREG) != nil {
			r.setMeta(e)
			return
		}
		r.store(e.Uint32(unix.NFTA_META_DREG), 4, r.meta(e.Uint32(unix.NFTA_META_KEY)))
	case "ct":
		if e.Find(unix.NFTA_CT_SREG) == nil {
			r.store(e.Uint32(unix.NFTA_CT_DREG), 4, r.tracking(e))
		}
	case "payload":
		if e.Find(unix.NFTA_PAYLOAD_SREG) == nil {
			size := e.Uint32(unix.NFTA_PAYLOAD_LEN)
			r.store(e.Uint32(unix.NFTA_PAYLOAD_DREG), size, r.payload(e))
		}
	case "fib":
		r.store(e.Uint32(unix.NFTA_FIB_DREG), 4, fibField(e))
	case "numgen":
		r.store(e.Uint32(unix.NFTA_NG_DREG), 4, field{kind: someField, name: "numgen"})
	case "hash":
		r.store(e.Uint32(unix.NFTA_HASH_DREG), 4, field{kind: someField, name: "hash"})
	default: // their first attribute but one is the register in one, and not in another: nothing else uses what was there
		r.registers = map[uint32]field{}
	}
}

func (r *reading) meta(key uint32) field {
	switch key {
	case unix.NFT_META_MARK:
		return field{kind: markField, name: "meta mark"}
	case unix.NFT_META_NFPROTO:
		return constantOf("meta nfproto", []byte{nativeFamily(r.family)})
	case unix.NFT_META_PROTOCOL:
		protocol := map[policy.Family]uint16{policy.IPv4: unix.ETH_P_IP, policy.IPv6: unix.ETH_P_IPV6}[r.family]
		return constantOf("meta protocol", binary.BigEndian.AppendUint16(nil, protocol))
	case unix.NFT_META_IIFNAME:
		return field{kind: inputField, name: "iifname", size: unix.IFNAMSIZ}
	case unix.NFT_META_OIFNAME:
		return field{kind: outputField, name: "oifname", size: unix.IFNAMSIZ}
	case unix.NFT_META_IIF:
		return field{kind: inputIndexField, name: "iif"}
	case unix.NFT_META_OIF:
		return field{kind: outputIndexField, name: "oif"}
	case unix.NFT_META_L4PROTO:
		return field{kind: protocolField, name: "meta l4proto", size: 1}
	case unix.NFT_META_PRANDOM, unix.NFT_META_CPU:
		return field{kind: someField}
	case unix.NFT_META_SKUID, unix.NFT_META_SKGID, unix.NFT_META_CGROUP:
		return field{kind: absentField}
	}
	return field{}
}

// constantOf is a value in the order in which the kernel has it in a register.
func constantOf(name string, value []byte) field {
	return field{kind: constantField, name: name, value: value, size: len(value)}
}

func native32(value uint32) []byte { return binary.NativeEndian.AppendUint32(nil, value) }

// tracking is what connection tracking says of the first packet of a connection whose destination was not translated.
func (r *reading) tracking(e nfnl.Attributes) field {
	if r.hook == beforeTracking {
		return field{}
	}
	const stateNew = 1 << 3 // NF_CT_STATE_BIT(IP_CT_NEW)
	reply := e.Find(unix.NFTA_CT_DIRECTION)
	original := len(reply) == 0 || reply[0] == 0
	switch key := e.Uint32(unix.NFTA_CT_KEY); {
	case key == unix.NFT_CT_STATE:
		return constantOf("ct state", native32(stateNew))
	case key == unix.NFT_CT_STATUS:
		return constantOf("ct status", native32(0))
	case key == unix.NFT_CT_MARK:
		return constantOf("ct mark", native32(0))
	case key == unix.NFT_CT_DIRECTION:
		return constantOf("ct direction", []byte{0})
	case original && slices.Contains([]uint32{unix.NFT_CT_SRC, unix.NFT_CT_SRC_IP, unix.NFT_CT_SRC_IP6}, key):
		return r.address(sourceField, "ct original saddr", r.family.Bits()/8)
	case original && slices.Contains([]uint32{unix.NFT_CT_DST, unix.NFT_CT_DST_IP, unix.NFT_CT_DST_IP6}, key):
		return r.address(destinationField, "ct original daddr", r.family.Bits()/8)
	}
	return field{}
}

func (r *reading) address(kind fieldKind, name string, size int) field {
	return field{kind: kind, name: name, size: size, bits: r.family.Bits()}
}

// payload recognises the addresses by where they stand in the IP header. A prefix that ends with a byte is loaded and compared
// without the rest.
func (r *reading) payload(e nfnl.Attributes) field {
	base, offset, size := e.Uint32(unix.NFTA_PAYLOAD_BASE), e.Uint32(unix.NFTA_PAYLOAD_OFFSET), int(e.Uint32(unix.NFTA_PAYLOAD_LEN))
	source, destination, prefix := uint32(12), uint32(16), "ip"
	if r.family == policy.IPv6 {
		source, destination, prefix = 8, 24, "ip6"
	}
	switch {
	case base == unix.NFT_PAYLOAD_TRANSPORT_HEADER && offset == 2 && size == 2:
		return field{kind: portField, name: "th dport", size: 2}
	case base == unix.NFT_PAYLOAD_TRANSPORT_HEADER:
		return field{kind: someField, name: "th"}
	case base != unix.NFT_PAYLOAD_NETWORK_HEADER || size > r.family.Bits()/8:
	case offset == source:
		return r.address(sourceField, prefix+" saddr", size)
	case offset == destination:
		return r.address(destinationField, prefix+" daddr", size)
	case r.family == policy.IPv4 && offset == 9 && size == 1:
		return field{kind: protocolField, name: "ip protocol", size: 1}
	}
	return field{}
}

// fibField knows the type of an address: a pod's, and those that it sends to through the node, are unicast.
func fibField(e nfnl.Attributes) field {
	if e.Uint32(unix.NFTA_FIB_RESULT) != unix.NFT_FIB_RESULT_ADDRTYPE {
		return field{}
	}
	flags := e.Uint32(unix.NFTA_FIB_FLAGS)
	name := "fib daddr type"
	if flags&unix.NFTA_FIB_F_SADDR != 0 {
		name = "fib saddr type"
	}
	if flags&(unix.NFTA_FIB_F_MARK|unix.NFTA_FIB_F_IIF|unix.NFTA_FIB_F_OIF) != 0 {
		name = strings.Replace(name, " type", " . if type", 1)
	}
	return constantOf(name, native32(unix.RTN_UNICAST))
}

// bitwise is the field under a mask.
func (f field) bitwise(e nfnl.Attributes) field {
	mask, xor := data(e, unix.NFTA_BITWISE_MASK), data(e, unix.NFTA_BITWISE_XOR)
	turned := len(bytes.Trim(xor, "\x00")) > 0
	switch {
	case f.kind == protocolField || f.kind == portField:
		return field{kind: someField, name: f.name, size: f.size}
	case mask == nil && f.kind == someField:
		return f
	case mask == nil || f.mask != nil: // a shift, or one mask above another
		return field{}
	case f.kind == constantField && len(f.value) <= len(mask):
		f.value = slices.Clone(f.value)
		for i := range f.value {
			f.value[i] = f.value[i]&mask[i] ^ xor[i]
		}
		f.name += fmt.Sprintf(" & %#x", number(mask))
		return f
	case turned && f.kind != markField && f.kind != someField:
		return field{}
	}
	f.mask, f.xor = mask, xor
	return f
}

// turned is a field whose bytes changed their order.
func (f field) turned() field {
	if f.kind == someField || f.kind == protocolField || f.kind == portField {
		return field{kind: someField, name: f.name, size: f.size}
	}
	return field{}
}

// setMeta changes what is known beside the packet, of which the mark alone matters.
func (r *reading) setMeta(e nfnl.Attributes) {
	if e.Uint32(unix.NFTA_META_KEY) != unix.NFT_META_MARK {
		return
	}
	from := r.at(e.Uint32(unix.NFTA_META_SREG))
	r.marks = true
	switch {
	case from.kind == constantField && len(from.value) == 4:
		r.mark, r.markMask = number(from.value), 1<<32-1
	case from.kind == markField && len(from.mask) == 4 && len(from.xor) == 4:
		r.mark, r.markMask = number(from.xor), ^number(from.mask)
	default:
		r.markUnknown = true
	}
	r.say("meta mark set")
}

// between is the condition that the field lies between two values, and most often is one.
func (f field) between(from, to []byte) condition {
	same := bytes.Equal(from, to)
	switch f.kind {
	case someField:
		return condition{about: some}
	case absentField:
		return constant(false)
	case protocolField, portField:
		return f.numberIn(from, to)
	case constantField:
		if len(from) >= len(f.value) && (same || len(f.value) == 1) {
			return constant(bytes.Compare(from[:len(f.value)], f.value) <= 0 && bytes.Compare(f.value, to[:len(f.value)]) <= 0)
		}
	case sourceField, destinationField:
		if r, ok := f.addresses(from, to); ok {
			about := map[fieldKind]subject{sourceField: source, destinationField: destination}[f.kind]
			return condition{about: about, addresses: ranges{r}}
		}
		if f.kind == sourceField && same && f.size == f.bits/8 && len(f.mask) == f.size && len(from) == f.size {
			return condition{about: source, bits: from, under: f.mask}
		}
	case inputField, outputField, inputIndexField, outputIndexField:
		if name, ok := f.interfaceIn(from, to); ok {
			about := map[fieldKind]subject{inputField: input, inputIndexField: input, outputField: output, outputIndexField: output}[f.kind]
			return condition{about: about, interfaces: []string{name}}
		}
	case markField:
		if same && len(from) == 4 && len(bytes.Trim(f.xor, "\x00")) == 0 {
			return condition{about: marked, mark: number(from), mask: f.bitsLookedAt()}
		}
	}
	return condition{}
}

// numberIn is a condition about the protocol or the port, which the kernel holds in network order.
func (f field) numberIn(from, to []byte) condition {
	if f.mask != nil || len(from) < f.size || len(to) < f.size {
		return condition{about: some}
	}
	if f.kind == protocolField {
		return condition{about: protocol, from: uint16(from[0]), upTo: uint16(to[0])}
	}
	return condition{about: port, from: binary.BigEndian.Uint16(from), upTo: binary.BigEndian.Uint16(to)}
}

func (f field) bitsLookedAt() uint32 {
	if f.mask == nil {
		return 1<<32 - 1
	}
	return number(f.mask)
}

// addresses is the range that values of the first bytes of an address stand for. A mask with holes stands for none.
func (f field) addresses(from, to []byte) (addrRange, bool) {
	size := f.bits / 8
	if len(from) < f.size || len(to) < f.size || f.size > size {
		return addrRange{}, false
	}
	last := append(slices.Clone(to[:f.size]), bytes.Repeat([]byte{0xff}, size-f.size)...)
	first := append(slices.Clone(from[:f.size]), make([]byte, size-f.size)...)
	if f.mask != nil {
		ones, bits := net.IPMask(f.mask[:min(f.size, len(f.mask))]).Size()
		if bits == 0 && ones == 0 || !bytes.Equal(from, to) {
			return addrRange{}, false
		}
		for i := ones; i < f.size*8; i++ {
			last[i/8] |= 0x80 >> (i % 8)
		}
	}
	start, ok1 := netip.AddrFromSlice(first)
	end, ok2 := netip.AddrFromSlice(last)
	return addrRange{start, end}, ok1 && ok2
}

// interfaceIn is the name that a value stands for, or the beginning of names.
func (f field) interfaceIn(from, to []byte) (string, bool) {
	if f.kind == inputIndexField || f.kind == outputIndexField {
		link, err := net.InterfaceByIndex(int(number(from)))
		if err != nil {
			return "", bytes.Equal(from, to) // gone, and with it all packets
		}
		return link.Name, bytes.Equal(from, to)
	}
	start := string(bytes.TrimRight(from, "\x00"))
	switch {
	case bytes.Equal(from, to) && len(start) == len(from) && len(from) < unix.IFNAMSIZ:
		return start + "*", true
	case bytes.Equal(from, to):
		return start, true
	case len(from) == len(to) && bytes.Equal(from[:len(start)], to[:len(start)]) && len(bytes.Trim(to[len(start):], "\xff")) == 0:
		return start + "*", true
	}
	return "", false
}

// text is the comparison in nft's words, empty where it takes more than a few.
func (f field) text(from, to []byte, not bool) string {
	c := f.between(from, to)
	switch {
	case f.kind == constantField && len(f.value) < 4: // protocols of layer 3, that nft leaves out as well
		return " "
	case f.kind == constantField && len(f.value) == 4 && strings.Contains(f.name, "type") && number(from) == unix.RTN_LOCAL:
		return fmt.Sprintf("%s %slocal", f.name, unequal(not))
	case f.kind == constantField && len(f.value) == 4 && bytes.Equal(from, to):
		relation := "=="
		if not {
			relation = "!="
		}
		return fmt.Sprintf("%s %s %#x", f.name, relation, number(from))
	case c.about == source && c.under != nil:
		return fmt.Sprintf("%s & %#x %s %#x", f.name, c.under, map[bool]string{true: "!=", false: "=="}[not], c.bits)
	case c.about == source || c.about == destination:
		return fmt.Sprintf("%s %s%s", f.name, unequal(not), c.addresses[0])
	case c.about == input || c.about == output:
		return fmt.Sprintf("%s %s%q", f.name, unequal(not), c.interfaces[0])
	case c.about == marked && f.mask == nil:
		return fmt.Sprintf("meta mark %s%#x", unequal(not), c.mark)
	case c.about == marked:
		return fmt.Sprintf("meta mark & %#x %s %#x", c.mask, map[bool]string{true: "!=", false: "=="}[not], c.mark)
	}
	return ""
}

// names are the fields of a key in nft's words.
func names(fields []field) string {
	var all []string
	for _, f := range fields {
		name := f.name
		if name == "" {
			name = "..."
		}
		all = append(all, name)
	}
	return strings.Join(all, " . ")
}

// number reads a value that the kernel keeps in the machine's order.
func number(data []byte) uint32 {
	if len(data) != 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(data)
}
