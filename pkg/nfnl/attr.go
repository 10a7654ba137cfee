package nfnl

import (
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

// The sizes of the headers that netlink puts before attributes (linux/netlink.h, linux/netfilter/nfnetlink.h).
const (
	messageHeader = unix.NLMSG_HDRLEN
	familyHeader  = 4
	attrHeader    = 4
)

// typeMask drops the bits of an attribute's type that say how its value is encoded.
const typeMask = ^uint16(unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)

// aligned rounds up to the alignment of messages and attributes.
func aligned(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }

func padded(b []byte) []byte { return append(b, make([]byte, aligned(len(b))-len(b))...) }

func appendBytes(b []byte, typ uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(attrHeader+len(value)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	return padded(append(b, value...))
}

// appendString appends a text with the zero byte at its end that the kernel insists on.
func appendString(b []byte, typ uint16, value string) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(attrHeader+len(value)+1))
	b = binary.NativeEndian.AppendUint16(b, typ)
	return padded(append(append(b, value...), 0))
}

// appendUint32 appends a number in network order, as everywhere in nf_tables.
func appendUint32(b []byte, typ uint16, value uint32) []byte {
	b = binary.NativeEndian.AppendUint16(b, attrHeader+4)
	b = binary.NativeEndian.AppendUint16(b, typ)
	return binary.BigEndian.AppendUint32(b, value)
}

func appendUint64(b []byte, typ uint16, value uint64) []byte {
	return appendBytes(b, typ, binary.BigEndian.AppendUint64(nil, value))
}

// open begins an attribute that holds attributes; closeAttr sets its length.
func open(b []byte, typ uint16) (grown []byte, start int) {
	start = len(b)
	b = binary.NativeEndian.AppendUint16(b, 0)
	return binary.NativeEndian.AppendUint16(b, typ|unix.NLA_F_NESTED), start
}

func closeAttr(b []byte, start int) {
	binary.NativeEndian.PutUint16(b[start:], uint16(len(b)-start))
}

// attributes walks over encoded attributes and stops at the first that does not fit.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= attrHeader {
			size := int(binary.NativeEndian.Uint16(b))
			if size < attrHeader || size > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:]), b[attrHeader:size]) {
				return
			}
			b = b[min(aligned(size), len(b)):]
		}
	}
}

// find returns the value of the first attribute of a type, nil where there is none.
func find(b []byte, typ uint16) []byte {
	for t, value := range attributes(b) {
		if t&typeMask == typ {
			return value
		}
	}
	return nil
}

func findString(b []byte, typ uint16) string { return text(find(b, typ)) }

func findUint32(b []byte, typ uint16) uint32 { return number(find(b, typ)) }

func findUint64(b []byte, typ uint16) uint64 {
	value := find(b, typ)
	if len(value) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(value)
}

// text drops the zero byte at a string's end.
func text(value []byte) string {
	if n := len(value); n > 0 && value[n-1] == 0 {
		value = value[:n-1]
	}
	return string(value)
}

func number(value []byte) uint32 {
	if len(value) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(value)
}
