package flows

import (
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// local are the destinations that the kernel delivers to the node itself, to which connections always keep the pod's address.
type local []netip.Prefix

// localDestinations reads the kernel's table of them: the node's own addresses, and whole prefixes where somebody routed those.
func localDestinations(f uint8) (local, error) {
	table := &netlink.Route{Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL}
	routes, err := netlink.RouteListFiltered(int(f), table, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
	if err != nil {
		return nil, err
	}
	var l local
	for _, route := range routes {
		if route.Dst == nil {
			continue
		}
		address, ok := netip.AddrFromSlice(route.Dst.IP)
		bits, _ := route.Dst.Mask.Size()
		if ok {
			l = append(l, netip.PrefixFrom(address.Unmap(), bits))
		}
	}
	return l, nil
}

func (l local) has(address netip.Addr) bool {
	for _, prefix := range l {
		if prefix.Contains(address) {
			return true
		}
	}
	return false
}
