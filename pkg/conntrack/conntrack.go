// Package conntrack reads the kernel's table of tracked connections over netlink: as a list that the kernel filters, as events,
// and as counters. It deletes entries that were listed.
//
// It stands beside github.com/vishvananda/netlink because that library has no kernel-side filter, allocates for each attribute,
// and reports neither events nor counters: a node's log of translations would take several times the CPU. It is of the same make
// as pkg/nfnl.
//
// It refuses to know whose a connection is, to judge it, and to retry. A socket belongs to the network namespace of the thread
// that opened it.
package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// SourceNAT is the bit of Flow.Status of connections whose source address or port was translated (IPS_SRC_NAT).
const SourceNAT = 1 << 4

// Tuple is one direction of a connection. For ICMP the port of the source is the identifier.
type Tuple struct {
	Proto    uint8
	Src, Dst netip.AddrPort
}

// Flow is one tracked connection.
type Flow struct {
	Original Tuple // what the client sent
	Reply    Tuple // what the server answers: its source is who really answers, its destination the translated source
	Status   uint32
	ID       uint32 // not used twice at the same time
	Zone     uint16

	Start, Stop int64 // nanoseconds since 1970, 0 where net.netfilter.nf_conntrack_timestamp was off when it began

	Counted         bool // net.netfilter.nf_conntrack_acct was on when it began
	Sent, Received  uint64
	SentPackets     uint64
	ReceivedPackets uint64

	attrs []byte // as the kernel sent them, for Entry
}

// Translated reports whether the source is not the one that the client sent.
func (f *Flow) Translated() bool {
	return f.Status&SourceNAT != 0 && f.Original.Src != f.Reply.Dst
}

// The attributes (linux/netfilter/nfnetlink_conntrack.h).
const (
	ctaOriginal      = 1
	ctaReply         = 2
	ctaStatus        = 3
	ctaCountersOrig  = 9
	ctaCountersReply = 10
	ctaID            = 12
	ctaZone          = 18
	ctaTimestamp     = 20
	ctaFilter        = 25
	ctaStatusMask    = 26

	filterOriginal = 1 // CTA_FILTER_ORIG_FLAGS
	filterSource   = 1 // of these flags, the one for the source's address (linux/net/netfilter/nf_internals.h)

	tupleIP    = 1
	tupleProto = 2

	ipv4Source = 1
	ipv4To     = 2
	ipv6Source = 3
	ipv6To     = 4

	protoNumber = 1
	protoFrom   = 2
	protoTo     = 3
	protoICMP   = 4
	protoICMPv6 = 7

	countPackets = 1
	countBytes   = 2

	stampStart = 1
	stampStop  = 2
)

// The messages of ctnetlink.
const (
	msgNew        = unix.NFNL_SUBSYS_CTNETLINK << 8
	msgGet        = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1
	msgDelete     = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2
	msgGetStatsPC = unix.NFNL_SUBSYS_CTNETLINK<<8 | 4
)

const (
	messageHeader = unix.NLMSG_HDRLEN
	familyHeader  = 4
	attrHeader    = 4
	typeMask      = ^uint16(unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
)

// attribute splits the first attribute off; one that does not fit ends the walk.
func attribute(b []byte) (typ uint16, value, rest []byte, ok bool) {
	if len(b) < attrHeader {
		return 0, nil, nil, false
	}
	size := int(binary.NativeEndian.Uint16(b))
	if size < attrHeader || size > len(b) {
		return 0, nil, nil, false
	}
	return binary.NativeEndian.Uint16(b[2:]) & typeMask, b[attrHeader:size], b[min((size+3)&^3, len(b)):], true
}

// decode reads the attributes of a message into f, whose former content is lost.
func (f *Flow) decode(b []byte) {
	*f = Flow{attrs: b}
	for typ, value, rest, ok := attribute(b); ok; typ, value, rest, ok = attribute(rest) {
		switch typ {
		case ctaOriginal:
			f.Original.decode(value)
		case ctaReply:
			f.Reply.decode(value)
		case ctaStatus:
			f.Status = uint32(number(value))
		case ctaID:
			f.ID = uint32(number(value))
		case ctaZone:
			f.Zone = uint16(number(value))
		case ctaCountersOrig:
			f.Counted = true
			f.SentPackets, f.Sent = pair(value, countPackets, countBytes)
		case ctaCountersReply:
			f.ReceivedPackets, f.Received = pair(value, countPackets, countBytes)
		case ctaTimestamp:
			start, stop := pair(value, stampStart, stampStop)
			f.Start, f.Stop = int64(start), int64(stop) //nolint:gosec // nanoseconds
		}
	}
}

func (t *Tuple) decode(b []byte) {
	var src, dst netip.Addr
	var from, to uint16
	for typ, value, rest, ok := attribute(b); ok; typ, value, rest, ok = attribute(rest) {
		for field, part, more, ok := attribute(value); ok; field, part, more, ok = attribute(more) {
			switch {
			case typ == tupleIP && (field == ipv4Source || field == ipv6Source):
				src, _ = netip.AddrFromSlice(part)
			case typ == tupleIP && (field == ipv4To || field == ipv6To):
				dst, _ = netip.AddrFromSlice(part)
			case typ == tupleProto && field == protoNumber && len(part) == 1:
				t.Proto = part[0]
			case typ == tupleProto && (field == protoFrom || field == protoICMP || field == protoICMPv6):
				from = uint16(number(part))
			case typ == tupleProto && field == protoTo:
				to = uint16(number(part))
			}
		}
	}
	t.Src, t.Dst = netip.AddrPortFrom(src, from), netip.AddrPortFrom(dst, to)
}

// number reads a number in network order, of any length.
func number(b []byte) (n uint64) {
	for _, c := range b[:min(len(b), 8)] {
		n = n<<8 | uint64(c)
	}
	return n
}

func pair(b []byte, first, second uint16) (x, y uint64) {
	for typ, value, rest, ok := attribute(b); ok; typ, value, rest, ok = attribute(rest) {
		switch typ {
		case first:
			x = number(value)
		case second:
			y = number(value)
		}
	}
	return x, y
}

// socket is one netlink socket.
type socket struct {
	fd     int
	buffer []byte
}

// patience bounds the wait for an answer that never comes.
const patience = 10 * time.Second

// receiveSize holds the largest datagram of a dump: the kernel fills at most 32 KiB.
const receiveSize = 64 << 10

func dial() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	s := &socket{fd: fd, buffer: make([]byte, receiveSize)}
	if err := s.bind(); err != nil {
		s.close()
		return nil, fmt.Errorf("prepare netlink socket: %w", err)
	}
	return s, nil
}

func (s *socket) bind() error {
	timeout := unix.NsecToTimeval(int64(patience))
	if err := unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return err
	}
	return unix.Bind(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

func (s *socket) close() { _ = unix.Close(s.fd) }

// receive returns one datagram, valid until the next call. It is read(2) and not recvfrom(2), whose wrapper allocates the
// sender's address for each event.
func (s *socket) receive() ([]byte, error) {
	for {
		n, err := unix.Read(s.fd, s.buffer)
		if err == unix.EINTR {
			continue
		}
		return s.buffer[:max(n, 0)], err
	}
}

// message splits the first message off a datagram.
func message(b []byte) (typ uint16, body, rest []byte, ok bool) {
	if len(b) < messageHeader {
		return 0, nil, nil, false
	}
	size := int(binary.NativeEndian.Uint32(b))
	if size < messageHeader || size > len(b) {
		return 0, nil, nil, false
	}
	return binary.NativeEndian.Uint16(b[4:]), b[messageHeader:size], b[min((size+3)&^3, len(b)):], true
}

// ask sends a request for a list and visits the messages of the answer.
func (s *socket) ask(typ uint16, family uint8, attrs []byte, visit func(body []byte)) error {
	if err := s.send(typ, unix.NLM_F_DUMP, family, attrs); err != nil {
		return err
	}
	return s.await(visit)
}

func (s *socket) send(typ, flags uint16, family uint8, attrs []byte) error {
	length := messageHeader + familyHeader + len(attrs)
	m := binary.NativeEndian.AppendUint32(make([]byte, 0, length), uint32(length)) //nolint:gosec // some bytes
	m = binary.NativeEndian.AppendUint16(m, typ)
	m = binary.NativeEndian.AppendUint16(m, unix.NLM_F_REQUEST|flags)
	m = append(m, make([]byte, 8)...) // sequence and port
	m = append(m, family, unix.NFNETLINK_V0, 0, 0)
	return unix.Sendto(s.fd, append(m, attrs...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// await reads until the end of an answer.
func (s *socket) await(visit func(body []byte)) error {
	for {
		datagram, err := s.receive()
		if err != nil {
			return err
		}
		done, err := answers(datagram, visit)
		if done || err != nil {
			return err
		}
	}
}

// errTruncated is a datagram without a message: going on would wait for an end that is lost.
var errTruncated = errors.New("an answer of the kernel that is no message")

func answers(datagram []byte, visit func(body []byte)) (done bool, err error) {
	seen := false
	for typ, body, rest, ok := message(datagram); ok; typ, body, rest, ok = message(rest) {
		seen = true
		switch typ {
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			if len(body) >= 4 {
				if code := int32(binary.NativeEndian.Uint32(body)); code < 0 { //nolint:gosec // an errno
					return true, unix.Errno(-code)
				}
			}
			return true, nil
		}
		if len(body) >= familyHeader {
			visit(body[familyHeader:])
		}
	}
	if !seen {
		return false, errTruncated
	}
	return false, nil
}
