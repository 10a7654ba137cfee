package explain

import (
	"encoding/binary"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
)

// tuple is one direction of a tracked connection.
type tuple struct {
	protocol uint8
	src, dst netip.AddrPort
}

// tracked is a connection of the kernel's table: as it was called, and as it is answered.
type tracked struct{ call, answer tuple }

// The messages and attributes of linux/netfilter/nfnetlink_conntrack.h.
const (
	ctGet        = 1
	ctTupleOrig  = 1
	ctTupleReply = 2
	ctTupleIP    = 1
	ctTupleProto = 2
	ctIPv4Src    = 1
	ctIPv4Dst    = 2
	ctIPv6Src    = 3
	ctIPv6Dst    = 4
	ctProtoNum   = 1
	ctProtoSrc   = 2
	ctProtoDst   = 3
)

// connections walks over the table, which may hold a million entries, and keeps those that the question is about.
func connections(q Question) ([]tracked, error) {
	family := uint8(unix.AF_INET)
	if q.Destination.Is6() {
		family = unix.AF_INET6
	}
	request := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|ctGet, unix.NLM_F_DUMP)
	request.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
	var found []tracked
	err := request.ExecuteIter(unix.NETLINK_NETFILTER, 0, func(message []byte) bool {
		if len(message) < nl.SizeofNfgenmsg {
			return true
		}
		attributes := nfnl.Attributes(message[nl.SizeofNfgenmsg:])
		c := tracked{call: tupleOf(attributes.Find(ctTupleOrig)), answer: tupleOf(attributes.Find(ctTupleReply))}
		if q.isAbout(c) {
			found = append(found, c)
		}
		return true
	})
	return found, err
}

func (q Question) isAbout(c tracked) bool {
	return c.call.src.Addr() == q.Source && c.call.dst.Addr() == q.Destination &&
		(q.Port == 0 || c.call.dst.Port() == q.Port) &&
		(q.Protocol == "" || c.call.protocol == protocols[q.Protocol])
}

func tupleOf(attributes nfnl.Attributes) tuple {
	ip, proto := attributes.Find(ctTupleIP), attributes.Find(ctTupleProto)
	address := func(v4, v6 uint16) netip.Addr {
		value := ip.Find(v4)
		if value == nil {
			value = ip.Find(v6)
		}
		addr, _ := netip.AddrFromSlice(value)
		return addr
	}
	port := func(attribute uint16) uint16 {
		if value := proto.Find(attribute); len(value) == 2 {
			return binary.BigEndian.Uint16(value)
		}
		return 0
	}
	t := tuple{
		src: netip.AddrPortFrom(address(ctIPv4Src, ctIPv6Src), port(ctProtoSrc)),
		dst: netip.AddrPortFrom(address(ctIPv4Dst, ctIPv6Dst), port(ctProtoDst)),
	}
	if number := proto.Find(ctProtoNum); len(number) == 1 {
		t.protocol = number[0]
	}
	return t
}
