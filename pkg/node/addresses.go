package node

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// governed returns the attachment with those addresses alone that can be a pod's. A rule for the address of the node itself
// would masquerade the node's own traffic, and one for the unspecified address nothing.
func (n *Node) governed(r *routes, a attachment.Attachment) attachment.Attachment {
	warn := func(reason string, addr netip.Addr) {
		n.log.Warn("no rule for this address: "+reason, "address", addr, "network", a.Network, "container", a.ContainerID, "interface", a.IfName)
	}
	a.Addresses = slices.DeleteFunc(slices.Clone(a.Addresses), func(addr netip.Addr) bool {
		switch {
		case addr.IsUnspecified():
			warn("it is the unspecified address", addr)
		case r.isLocal(addr):
			warn("it is an address of the node itself", addr)
		default:
			return false
		}
		return true
	})
	return a
}

// canBePods is what governed asks of an address.
func (r *routes) canBePods(addr netip.Addr) bool { return !addr.IsUnspecified() && !r.isLocal(addr) }

// pods keeps those addresses that can be a pod's.
func (r *routes) pods(addresses []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(addresses), func(addr netip.Addr) bool { return !r.canBePods(addr) })
}

// pods keeps those addresses that can be a pod's.
func pods(addresses []netip.Addr) []netip.Addr {
	r := askRoutes()
	defer r.close()
	return r.pods(addresses)
}

// isLocal asks the kernel for the route to an address, which is of type local for the node's own: listing the node's addresses
// would take long where kube-proxy gives it one for each service. When the kernel cannot be asked, the address is not local.
func (r *routes) isLocal(addr netip.Addr) bool {
	family := byte(unix.AF_INET)
	if policy.FamilyOf(addr) == policy.IPv6 {
		family = unix.AF_INET6
	}
	request := append([]byte{family, byte(addr.BitLen())}, make([]byte, unix.SizeofRtMsg-2)...) //nolint:gosec // at most 128; any table, any type
	reply, err := r.ask(unix.RTM_GETROUTE, 0, appendAttr(request, unix.RTA_DST, addr.AsSlice()))
	const typeOfRoute = 7 // rtm_type in struct rtmsg (linux/rtnetlink.h)
	return err == nil && len(reply) > typeOfRoute && reply[typeOfRoute] == unix.RTN_LOCAL
}
