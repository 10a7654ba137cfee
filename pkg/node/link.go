package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/plainfile"
)

// link is what the kernel says of a network interface.
type link struct {
	hardware uint16 // ARPHRD_*
	kind     string // of a virtual interface, such as "veth"; empty for a card
	mode     uint16 // of an ipvlan interface
}

// linkIn reads an interface of another network namespace from here, without entering it: the node's own netlink answers for any
// namespace that has a number in the node's, and one without gets the next number, which goes with the namespace.
func (r *routes) linkIn(netns, name string) (link, error) {
	file, err := plainfile.Open(netns, unix.O_RDONLY, 0)
	if err != nil {
		return link{}, fmt.Errorf("open the network namespace: %w", err)
	}
	defer func() { _ = file.Close() }()
	number, err := r.numberOf(uint32(file.Fd())) //nolint:gosec // a descriptor
	if err != nil {
		return link{}, fmt.Errorf("number of the network namespace: %w", err)
	}
	// struct ifinfomsg, all zero: any interface of the name
	body := appendAttr(make([]byte, unix.SizeofIfInfomsg), unix.IFLA_IFNAME, append([]byte(name), 0))
	body = appendAttr(body, unix.IFLA_TARGET_NETNSID, binary.NativeEndian.AppendUint32(nil, number))
	reply, err := r.ask(unix.RTM_GETLINK, 0, body)
	if err != nil {
		return link{}, fmt.Errorf("read the interface: %w", err)
	}
	return parseLink(reply), nil
}

const noNumber = ^uint32(0) // NETNSA_NSID_NOT_ASSIGNED

// numberOf is the number by which the node's namespace calls the one of a descriptor.
func (r *routes) numberOf(netns uint32) (uint32, error) {
	which := appendAttr(make([]byte, 4), unix.NETNSA_FD, binary.NativeEndian.AppendUint32(nil, netns)) // struct rtgenmsg, padded
	for range 2 {
		reply, err := r.ask(unix.RTM_GETNSID, 0, which)
		if err != nil {
			return 0, err
		}
		if value := attrOf(reply[min(4, len(reply)):], unix.NETNSA_NSID); len(value) == 4 && binary.NativeEndian.Uint32(value) != noNumber {
			return binary.NativeEndian.Uint32(value), nil
		}
		next := appendAttr(which[:len(which):len(which)], unix.NETNSA_NSID, binary.NativeEndian.AppendUint32(nil, noNumber))
		if _, err := r.ask(unix.RTM_NEWNSID, unix.NLM_F_ACK, next); err != nil && !errors.Is(err, unix.EEXIST) {
			return 0, err
		}
	}
	return 0, errors.New("none was given")
}

// routes is a socket for the kernel's routing and links, for all that is asked of many pods, and the room for one answer.
type routes struct {
	fd       int
	err      error // why there is none
	sequence uint32
	buffer   []byte
}

// askRoutes opens the socket in the network namespace of the calling thread. Where that fails, every question does.
func askRoutes() *routes {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return &routes{err: fmt.Errorf("open netlink socket: %w", err)}
	}
	return &routes{fd: fd, buffer: make([]byte, 16<<10)}
}

func (r *routes) close() {
	if r.err == nil {
		_ = unix.Close(r.fd)
	}
}

// ask sends one request and returns the body of the answer, which is valid until the next one. What is left of an earlier one, whose
// receiving was interrupted, is passed over.
func (r *routes) ask(typ, flags uint16, body []byte) ([]byte, error) {
	if r.err != nil {
		return nil, r.err
	}
	r.sequence++
	order := binary.NativeEndian
	m := order.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body))) //nolint:gosec // a few attributes
	m = order.AppendUint16(m, typ)
	m = order.AppendUint16(m, unix.NLM_F_REQUEST|flags)
	m = order.AppendUint32(m, r.sequence)
	m = append(append(m, make([]byte, 4)...), body...) // the port
	if err := unix.Sendto(r.fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	for {
		size, _, err := unix.Recvfrom(r.fd, r.buffer, 0)
		if err != nil {
			return nil, err
		}
		if size < unix.NLMSG_HDRLEN {
			return nil, unix.EBADMSG
		}
		reply := r.buffer[:size]
		if order.Uint32(reply[8:]) != r.sequence {
			continue
		}
		kind, content := order.Uint16(reply[4:]), reply[unix.NLMSG_HDRLEN:]
		if kind == unix.NLMSG_ERROR && len(content) >= 4 {
			if errno := unix.Errno(-int32(order.Uint32(content))); errno != 0 { //nolint:gosec // as the kernel means it
				return nil, errno
			}
		}
		return content, nil
	}
}

func parseLink(body []byte) (l link) {
	if len(body) < unix.SizeofIfInfomsg {
		return link{}
	}
	l.hardware = binary.NativeEndian.Uint16(body[2:])
	info := attrOf(body[unix.SizeofIfInfomsg:], unix.IFLA_LINKINFO)
	l.kind = strings.TrimRight(string(attrOf(info, unix.IFLA_INFO_KIND)), "\x00")
	if mode := attrOf(attrOf(info, unix.IFLA_INFO_DATA), unix.IFLA_IPVLAN_MODE); l.kind == "ipvlan" && len(mode) >= 2 {
		l.mode = binary.NativeEndian.Uint16(mode)
	}
	return l
}

func appendAttr(b []byte, typ uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value))) //nolint:gosec // short
	b = append(binary.NativeEndian.AppendUint16(b, typ), value...)
	return append(b, make([]byte, -len(b)&(unix.NLA_ALIGNTO-1))...)
}

// attrOf returns the value of the first attribute of a type, nil where there is none.
func attrOf(b []byte, typ uint16) []byte {
	for len(b) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			return nil
		}
		if binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER) == typ {
			return b[unix.SizeofRtAttr:size]
		}
		b = b[min((size+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1), len(b)):]
	}
	return nil
}
