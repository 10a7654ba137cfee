package nfnl

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"net/netip"

	"golang.org/x/sys/unix"
)

// DecodeRule reads a rule that RawRules returned.
func DecodeRule(raw []byte) Rule { return decodeRule(raw) }

// AppendContent appends what a rule of RawRules says, without what differs between two readings of the same rule or between
// two equal rules: its handle, its place and its counts.
func AppendContent(d, raw []byte) []byte {
	for _, expr := range attributes(find(raw, unix.NFTA_RULE_EXPRESSIONS)) {
		if ExprName(expr) == "counter" {
			d = append(d, "counter"...)
			continue
		}
		d = binary.NativeEndian.AppendUint32(d, uint32(len(expr)))
		d = append(d, expr...)
	}
	return append(d, find(raw, unix.NFTA_RULE_USERDATA)...)
}

// The attributes of the expressions "match" and "target", which run an extension of xtables (linux/netfilter/nf_tables_compat.h).
const (
	xtName = 1
	xtInfo = 3
)

// XTName returns the name of the extension of xtables that an expression runs, else nothing.
func XTName(expr []byte) string {
	if name := ExprName(expr); name != "match" && name != "target" {
		return ""
	}
	return findString(find(expr, unix.NFTA_EXPR_DATA), xtName)
}

// XTComment returns a rule's comment as the extension "comment" of xtables holds it, or as nft does.
func XTComment(r Rule) string {
	for _, expr := range r.Exprs {
		if XTName(expr) == "comment" {
			comment, _, _ := bytes.Cut(find(find(expr, unix.NFTA_EXPR_DATA), xtInfo), []byte{0})
			return string(comment)
		}
	}
	return r.Comment
}

// VerdictOf returns the verdict that an expression sets, such as unix.NFT_RETURN.
func VerdictOf(expr []byte) (code int32, ok bool) {
	data := find(expr, unix.NFTA_EXPR_DATA)
	if ExprName(expr) != "immediate" || findUint32(data, unix.NFTA_IMMEDIATE_DREG) != unix.NFT_REG_VERDICT {
		return 0, false
	}
	verdict := find(find(data, unix.NFTA_IMMEDIATE_DATA), unix.NFTA_DATA_VERDICT)
	return int32(findUint32(verdict, unix.NFTA_VERDICT_CODE)), verdict != nil
}

// Loads reports whether an expression loads exactly this part of the network header, into whatever register.
func Loads(expr []byte, offset, size uint32) bool {
	data := find(expr, unix.NFTA_EXPR_DATA)
	return ExprName(expr) == "payload" && findUint32(data, unix.NFTA_PAYLOAD_BASE) == unix.NFT_PAYLOAD_NETWORK_HEADER &&
		findUint32(data, unix.NFTA_PAYLOAD_OFFSET) == offset && findUint32(data, unix.NFTA_PAYLOAD_LEN) == size
}

// Equals returns the value that an expression compares the loaded one to, nil for another kind of expression or comparison.
func Equals(expr []byte) []byte {
	if operation, value := Compares(expr); operation == unix.NFT_CMP_EQ {
		return value
	}
	return nil
}

// Compares returns what an expression compares the loaded value to, and how; nothing for another kind of expression.
func Compares(expr []byte) (operation uint32, value []byte) {
	if ExprName(expr) != "cmp" {
		return 0, nil
	}
	data := find(expr, unix.NFTA_EXPR_DATA)
	return findUint32(data, unix.NFTA_CMP_OP), find(find(data, unix.NFTA_CMP_DATA), unix.NFTA_DATA_VALUE)
}

// Masks returns the mask that an expression applies to the loaded value, nil for another kind of expression.
func Masks(expr []byte) []byte {
	if ExprName(expr) != "bitwise" {
		return nil
	}
	return find(find(find(expr, unix.NFTA_EXPR_DATA), unix.NFTA_BITWISE_MASK), unix.NFTA_DATA_VALUE)
}

// Destination returns the prefix that a rule's first look at the destination compares it with, all of a family whose addresses have
// that many bytes where the rule looks at none. iptables-nft loads a part of the address where the prefix ends with a byte.
func Destination(r Rule, size int) (netip.Prefix, bool) {
	offset := uint32(16)
	if size == 16 {
		offset = 24
	}
	length := -1
	for _, expr := range r.Exprs {
		data := find(expr, unix.NFTA_EXPR_DATA)
		switch {
		case length < 0:
			if ExprName(expr) == "payload" && findUint32(data, unix.NFTA_PAYLOAD_BASE) == unix.NFT_PAYLOAD_NETWORK_HEADER && findUint32(data, unix.NFTA_PAYLOAD_OFFSET) == offset {
				length = 8 * int(findUint32(data, unix.NFTA_PAYLOAD_LEN))
			}
		case ExprName(expr) == "bitwise":
			ones, ok := Ones(Masks(expr))
			if !ok {
				return netip.Prefix{}, false
			}
			length = ones
		default:
			value := Equals(expr)
			if value == nil || len(value) > size {
				return netip.Prefix{}, false
			}
			address, ok := netip.AddrFromSlice(append(bytes.Clone(value), make([]byte, size-len(value))...))
			return netip.PrefixFrom(address, length), ok
		}
	}
	address, _ := netip.AddrFromSlice(make([]byte, size))
	return netip.PrefixFrom(address, 0), length < 0
}

// Ones counts the bits that a mask begins with; false where others are set behind them.
func Ones(mask []byte) (ones int, contiguous bool) {
	for i, b := range mask {
		ones += bits.LeadingZeros8(^b)
		if b != 0xff {
			return ones, b<<bits.LeadingZeros8(^b) == 0 && zero(mask[i+1:])
		}
	}
	return ones, true
}
