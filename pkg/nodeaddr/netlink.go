package nodeaddr

import (
	"encoding/binary"
	"iter"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds the wait for an answer that never comes.
const patience = 10 * time.Second

func open() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return -1, err
	}
	timeout := unix.NsecToTimeval(int64(patience))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// messages are the messages of a datagram, by type and content. One that does not fit ends them.
func messages(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.NLMSG_HDRLEN {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.NLMSG_HDRLEN || size > len(b) || !yield(binary.NativeEndian.Uint16(b[4:]), b[unix.NLMSG_HDRLEN:size]) {
				return
			}
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}

func errorOf(body []byte) error {
	if len(body) < 4 {
		return unix.EBADMSG
	}
	return unix.Errno(-int32(binary.NativeEndian.Uint32(body))) //nolint:gosec // as the kernel means it
}

// parse reads an address and its flags out of RTM_NEWADDR or RTM_DELADDR: struct ifaddrmsg and attributes (linux/if_addr.h). On an
// interface with a peer IFA_ADDRESS is the peer's, and IFA_LOCAL the node's.
func parse(body []byte) (address netip.Addr, flags uint32) {
	if len(body) < unix.SizeofIfAddrmsg {
		return netip.Addr{}, 0
	}
	flags = uint32(body[2])
	var local, other netip.Addr
	for b := body[unix.SizeofIfAddrmsg:]; len(b) >= unix.SizeofRtAttr; {
		size, typ := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if size < unix.SizeofRtAttr || size > len(b) {
			break
		}
		switch value := b[unix.SizeofRtAttr:size]; typ {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(value)
		case unix.IFA_ADDRESS:
			other, _ = netip.AddrFromSlice(value)
		case unix.IFA_FLAGS:
			if len(value) == 4 {
				flags = binary.NativeEndian.Uint32(value)
			}
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	if local.IsValid() {
		return local, flags
	}
	return other, flags
}
