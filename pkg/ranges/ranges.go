// Package ranges finds the ranges of a cluster whose packets should keep their source among each other, as far as one node can
// know them: the networks that the node is connected to, the pod ranges in its conflists, and the routes to other nodes' pods.
//
// It reads and never writes, and it refuses to know Kubernetes: service ranges stand nowhere on a node, so people give them.
package ranges

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/config"
)

// Find lists what the node's routes and the conflists of a directory say, of the families that are on. An error means that a
// part could not be read; what could be is there.
func Find(confDir string, ipv6 bool) ([]config.Range, error) {
	found, err := inConflists(confDir)
	routed, routeErr := inRoutes()
	found = append(found, routed...)
	found = slices.DeleteFunc(found, func(r config.Range) bool { return r.Prefix.Addr().Is6() && !ipv6 })
	return distinct(found), cmp.Or(err, routeErr)
}

// distinct keeps the first of several ranges with one prefix, in their order.
func distinct(all []config.Range) []config.Range {
	seen := map[netip.Prefix]bool{}
	return slices.DeleteFunc(all, func(r config.Range) bool {
		twice := seen[r.Prefix]
		seen[r.Prefix] = true
		return twice
	})
}

// inRoutes reads the main routing table of both families.
func inRoutes() ([]config.Range, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	names := map[int]string{}
	for _, link := range links {
		names[link.Attrs().Index] = link.Attrs().Name
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	defaults := map[string]bool{}
	for _, route := range routes {
		if prefix, ok := destination(route); ok && prefix.Bits() == 0 {
			defaults[route.Gw.String()] = true
		}
	}
	var found []config.Range
	for _, route := range routes {
		prefix, ok := destination(route)
		if !ok || prefix.Bits() == 0 || prefix.Addr().IsLinkLocalUnicast() || prefix.Addr().IsMulticast() || prefix.Addr().IsLoopback() {
			continue
		}
		switch {
		case route.Gw == nil && !prefix.IsSingleIP():
			found = append(found, config.Range{Prefix: prefix, Name: "network of " + names[route.LinkIndex]})
		case route.Gw != nil && !defaults[route.Gw.String()]: // behind a default gateway lies the world
			found = append(found, config.Range{Prefix: prefix, Name: "network behind " + route.Gw.String() + ", which is no default gateway"})
		}
	}
	return found, nil
}

// destination reads a route's; a default route may have none.
func destination(route netlink.Route) (netip.Prefix, bool) {
	if route.Type != unix.RTN_UNICAST {
		return netip.Prefix{}, false
	}
	if route.Dst == nil {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0), true
	}
	addr, ok := netip.AddrFromSlice(route.Dst.IP)
	ones, bits := route.Dst.Mask.Size()
	if addr = addr.Unmap(); !ok || addr.BitLen() != bits {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(addr, ones).Masked(), true
}
