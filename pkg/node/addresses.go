package node

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// governed returns the attachment with those addresses alone that can be a pod's. A rule for the address of the node itself
// would masquerade the node's own traffic, and one for the unspecified address nothing.
func (n *Node) governed(a attachment.Attachment) attachment.Attachment {
	warn := func(reason string, addr netip.Addr) {
		n.log.Warn("no rule for this address: "+reason, "address", addr, "network", a.Network, "container", a.ContainerID, "interface", a.IfName)
	}
	a.Addresses = slices.DeleteFunc(slices.Clone(a.Addresses), func(addr netip.Addr) bool {
		switch {
		case addr.IsUnspecified():
			warn("it is the unspecified address", addr)
		case isLocal(addr):
			warn("it is an address of the node itself", addr)
		default:
			return false
		}
		return true
	})
	return a
}

// isLocal asks the kernel for the route to an address, which is of type local for the node's own: listing the node's addresses
// would take long where kube-proxy gives it one for each service. When the kernel cannot be asked, the address is not local.
func isLocal(addr netip.Addr) bool {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	if unix.Sendto(fd, routeRequest(addr), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) != nil {
		return false
	}
	reply := make([]byte, 4096)
	size, _, err := unix.Recvfrom(fd, reply, 0)
	const typeOfRoute = unix.NLMSG_HDRLEN + 7 // rtm_type in struct rtmsg (linux/rtnetlink.h)
	return err == nil && size > typeOfRoute &&
		binary.NativeEndian.Uint16(reply[4:]) == unix.RTM_NEWROUTE && reply[typeOfRoute] == unix.RTN_LOCAL
}

// routeRequest is RTM_GETROUTE for one destination: struct nlmsghdr, struct rtmsg, and the attribute RTA_DST.
func routeRequest(addr netip.Addr) []byte {
	family := byte(unix.AF_INET)
	if policy.FamilyOf(addr) == policy.IPv6 {
		family = unix.AF_INET6
	}
	destination := addr.AsSlice()
	order := binary.NativeEndian
	length := unix.NLMSG_HDRLEN + unix.SizeofRtMsg + unix.SizeofRtAttr + len(destination)
	m := order.AppendUint32(nil, uint32(length)) //nolint:gosec // at most 48
	m = order.AppendUint16(m, unix.RTM_GETROUTE)
	m = order.AppendUint16(m, unix.NLM_F_REQUEST)
	m = append(m, make([]byte, 8)...)                                     // sequence and port
	m = append(m, family, byte(addr.BitLen()))                            //nolint:gosec // at most 128
	m = append(m, make([]byte, unix.SizeofRtMsg-2)...)                    // any table, any type
	m = order.AppendUint16(m, uint16(unix.SizeofRtAttr+len(destination))) //nolint:gosec // at most 20
	m = order.AppendUint16(m, unix.RTA_DST)
	return append(m, destination...)
}
