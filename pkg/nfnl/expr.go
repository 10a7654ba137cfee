package nfnl

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// The expressions that rules are made of, as the kernel takes them (linux/netfilter/nf_tables.h). Those that load a value put
// it into the first register, and those that look at one find it there. They are few enough to be written out: the library's
// cannot express a masquerade with both ports and flags, and all its kinds of expressions would be linked with them.

func expression(name string, data []byte) []byte {
	return appendBytes(appendString(nil, unix.NFTA_EXPR_NAME, name), unix.NFTA_EXPR_DATA|unix.NLA_F_NESTED, data)
}

// LoadMeta loads what the kernel knows beside the packet, such as unix.NFT_META_L4PROTO.
func LoadMeta(key uint32) []byte {
	d := appendUint32(nil, unix.NFTA_META_KEY, key)
	return expression("meta", appendUint32(d, unix.NFTA_META_DREG, unix.NFT_REG_1))
}

// LoadNetwork loads a part of the network header.
func LoadNetwork(offset, size uint32) []byte {
	d := appendUint32(nil, unix.NFTA_PAYLOAD_DREG, unix.NFT_REG_1)
	d = appendUint32(d, unix.NFTA_PAYLOAD_BASE, unix.NFT_PAYLOAD_NETWORK_HEADER)
	d = appendUint32(d, unix.NFTA_PAYLOAD_OFFSET, offset)
	return expression("payload", appendUint32(d, unix.NFTA_PAYLOAD_LEN, size))
}

// LoadDestinationType loads the type of the destination address, such as unix.RTN_LOCAL, in the machine's order.
func LoadDestinationType() []byte {
	d := appendUint32(nil, unix.NFTA_FIB_DREG, unix.NFT_REG_1)
	d = appendUint32(d, unix.NFTA_FIB_FLAGS, unix.NFTA_FIB_F_DADDR)
	return expression("fib", appendUint32(d, unix.NFTA_FIB_RESULT, unix.NFT_FIB_RESULT_ADDRTYPE))
}

// LoadRandom loads a random number below modulus, in the machine's order.
func LoadRandom(modulus uint32) []byte {
	d := appendUint32(nil, unix.NFTA_NG_DREG, unix.NFT_REG_1)
	d = appendUint32(d, unix.NFTA_NG_MODULUS, modulus)
	return expression("numgen", appendUint32(d, unix.NFTA_NG_TYPE, unix.NFT_NG_RANDOM))
}

// ToNetworkOrder turns a loaded number around, for comparisons of size.
func ToNetworkOrder() []byte {
	d := appendUint32(nil, unix.NFTA_BYTEORDER_SREG, unix.NFT_REG_1)
	d = appendUint32(d, unix.NFTA_BYTEORDER_DREG, unix.NFT_REG_1)
	d = appendUint32(d, unix.NFTA_BYTEORDER_OP, unix.NFT_BYTEORDER_HTON)
	d = appendUint32(d, unix.NFTA_BYTEORDER_LEN, 4)
	return expression("byteorder", appendUint32(d, unix.NFTA_BYTEORDER_SIZE, 4))
}

// Compare goes on with the rule if the loaded value compares to value, by an operation such as unix.NFT_CMP_EQ.
func Compare(operation uint32, value []byte) []byte {
	d := appendUint32(nil, unix.NFTA_CMP_SREG, unix.NFT_REG_1)
	d = appendUint32(d, unix.NFTA_CMP_OP, operation)
	d, data := open(d, unix.NFTA_CMP_DATA)
	d = appendBytes(d, unix.NFTA_DATA_VALUE, value)
	closeAttr(d, data)
	return expression("cmp", d)
}

// LookUp goes on with the rule if the loaded value is in a set.
func LookUp(set string) []byte {
	return expression("lookup", appendString(appendUint32(nil, unix.NFTA_LOOKUP_SREG, unix.NFT_REG_1), unix.NFTA_LOOKUP_SET, set))
}

// LookUpNot goes on with the rule if the loaded value is not in a set.
func LookUpNot(set string) []byte {
	d := appendString(appendUint32(nil, unix.NFTA_LOOKUP_SREG, unix.NFT_REG_1), unix.NFTA_LOOKUP_SET, set)
	return expression("lookup", appendUint32(d, unix.NFTA_LOOKUP_FLAGS, unix.NFT_LOOKUP_F_INV))
}

// LookUpValue loads what a map has for the loaded value, and ends the rule if it has nothing.
func LookUpValue(set string) []byte { return lookUpInto(unix.NFT_REG_1, set) }

// LookUpVerdict takes the verdict that a map has for the loaded value, and ends the rule if it has none.
func LookUpVerdict(set string) []byte { return lookUpInto(unix.NFT_REG_VERDICT, set) }

func lookUpInto(register uint32, set string) []byte {
	d := appendString(appendUint32(nil, unix.NFTA_LOOKUP_SREG, unix.NFT_REG_1), unix.NFTA_LOOKUP_SET, set)
	return expression("lookup", appendUint32(d, unix.NFTA_LOOKUP_DREG, register))
}

// Mask leaves of the loaded value the bits that are set in mask.
func Mask(mask []byte) []byte {
	d := appendUint32(nil, unix.NFTA_BITWISE_SREG, unix.NFT_REG_1)
	d = appendUint32(d, unix.NFTA_BITWISE_DREG, unix.NFT_REG_1)
	d = appendUint32(d, unix.NFTA_BITWISE_LEN, uint32(len(mask)))
	d, data := open(d, unix.NFTA_BITWISE_MASK)
	d = appendBytes(d, unix.NFTA_DATA_VALUE, mask)
	closeAttr(d, data)
	d, data = open(d, unix.NFTA_BITWISE_XOR)
	d = appendBytes(d, unix.NFTA_DATA_VALUE, make([]byte, len(mask)))
	closeAttr(d, data)
	return expression("bitwise", d)
}

// Count counts packets and bytes.
func Count() []byte { return expression("counter", nil) }

// CountOn counts on from where another rule has come to.
func CountOn(packets, bytes uint64) []byte {
	return expression("counter", appendUint64(appendUint64(nil, unix.NFTA_COUNTER_BYTES, bytes), unix.NFTA_COUNTER_PACKETS, packets))
}

// Return leaves the chain.
func Return() []byte { return verdict(unix.NFT_RETURN, "") }

// GoTo continues in another chain and does not come back.
func GoTo(chain string) []byte { return verdict(unix.NFT_GOTO, chain) }

// Drop drops the packet.
func Drop() []byte { return verdict(0, "") } // NF_DROP

func verdict(code int32, chain string) []byte {
	d := appendUint32(nil, unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
	d, data := open(d, unix.NFTA_IMMEDIATE_DATA)
	d = appendVerdict(d, code, chain)
	closeAttr(d, data)
	return expression("immediate", d)
}

func appendVerdict(d []byte, code int32, chain string) []byte {
	d, verdict := open(d, unix.NFTA_DATA_VERDICT)
	d = appendUint32(d, unix.NFTA_VERDICT_CODE, uint32(code))
	if chain != "" {
		d = appendString(d, unix.NFTA_VERDICT_CHAIN, chain)
	}
	closeAttr(d, verdict)
	return d
}

// Masquerade takes the address of the outgoing interface and a source port between first and last, or any where both are 0.
// The flags are such as unix.NF_NAT_RANGE_PROTO_RANDOM_FULLY.
func Masquerade(flags uint32, first, last uint16) [][]byte {
	exprs, d := portLimits(nil, unix.NFT_REG_1, unix.NFTA_MASQ_REG_PROTO_MIN, unix.NFTA_MASQ_REG_PROTO_MAX, first, last)
	if first != 0 {
		flags |= unix.NF_NAT_RANGE_PROTO_SPECIFIED
	}
	if flags != 0 {
		d = appendUint32(d, unix.NFTA_MASQ_FLAGS, flags)
	}
	return append(exprs, expression("masq", d))
}

// TranslateSource takes the loaded address for the source, of a family such as unix.NFPROTO_IPV4, and a source port between first
// and last, or any where both are 0. Flags and ports are as in Masquerade; the kernel tells the address as its own limit too.
func TranslateSource(family byte, flags uint32, first, last uint16) [][]byte {
	d := appendUint32(nil, unix.NFTA_NAT_TYPE, unix.NFT_NAT_SNAT)
	d = appendUint32(d, unix.NFTA_NAT_FAMILY, uint32(family))
	d = appendUint32(d, unix.NFTA_NAT_REG_ADDR_MIN, unix.NFT_REG_1)
	d = appendUint32(d, unix.NFTA_NAT_REG_ADDR_MAX, unix.NFT_REG_1)
	exprs, d := portLimits(d, unix.NFT_REG_2, unix.NFTA_NAT_REG_PROTO_MIN, unix.NFTA_NAT_REG_PROTO_MAX, first, last)
	flags |= unix.NF_NAT_RANGE_MAP_IPS
	if first != 0 {
		flags |= unix.NF_NAT_RANGE_PROTO_SPECIFIED
	}
	return append(exprs, expression("nat", appendUint32(d, unix.NFTA_NAT_FLAGS, flags)))
}

// portLimits loads the ports into a register and the one behind it, and names these by the attributes from and to of what takes
// them. One port alone is its own limit, as nft writes it and the kernel tells it. There are no limits where first is 0.
func portLimits(attrs []byte, register uint32, from, to, first, last uint16) (loads [][]byte, named []byte) {
	if first == 0 {
		return nil, attrs
	}
	loads = append(loads, loadPort(register, first))
	attrs = appendUint32(attrs, from, register)
	if last != first {
		register++
		loads = append(loads, loadPort(register, last))
	}
	return loads, appendUint32(attrs, to, register)
}

// LoadAddress loads an address.
func LoadAddress(a netip.Addr) []byte { return load(unix.NFT_REG_1, a.AsSlice()) }

func loadPort(register uint32, port uint16) []byte {
	return load(register, binary.BigEndian.AppendUint16(nil, port))
}

func load(register uint32, value []byte) []byte {
	d := appendUint32(nil, unix.NFTA_IMMEDIATE_DREG, register)
	d, data := open(d, unix.NFTA_IMMEDIATE_DATA)
	d = appendBytes(d, unix.NFTA_DATA_VALUE, value)
	closeAttr(d, data)
	return expression("immediate", d)
}

// Loaded returns the value that an expression loads, nil for another kind of expression.
func Loaded(expr []byte) []byte {
	if ExprName(expr) != "immediate" {
		return nil
	}
	return find(find(find(expr, unix.NFTA_EXPR_DATA), unix.NFTA_IMMEDIATE_DATA), unix.NFTA_DATA_VALUE)
}
