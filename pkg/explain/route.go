package explain

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// route is how the kernel routes the packet.
type route struct {
	local     bool       // the destination is an address of the node
	own       bool       // the source is one
	input     string     // the interface that the packet comes in by, empty where the node sends it itself
	output    string     // the one by which it leaves
	gateway   netip.Addr // the next hop, invalid where that is the destination
	err       error      // why it does not leave
	forwarded bool       // it comes in by an interface that forwards
}

// routeOf asks the kernel as for the packet itself: with its source, and the interface over which that is reached.
func routeOf(source, destination netip.Addr) route {
	r := route{forwarded: true}
	options := netlink.RouteGetOptions{SrcAddr: source.AsSlice()}
	back, err := lookUp(source, netlink.RouteGetOptions{})
	switch {
	case err != nil:
	case back.Type == unix.RTN_LOCAL:
		r.own = true
	case back.Type == unix.RTN_UNICAST:
		r.input = linkName(back.LinkIndex)
		options.Iif = r.input
		r.forwarded = forwards(policy.FamilyOf(destination), r.input)
	}
	found, err := lookUp(destination, options)
	if err != nil {
		if found, err = lookUp(destination, netlink.RouteGetOptions{}); err != nil {
			r.err = err
			return r
		}
	}
	switch found.Type {
	case unix.RTN_LOCAL:
		r.local = true
	case unix.RTN_UNICAST, unix.RTN_MULTICAST:
		r.output = linkName(found.LinkIndex)
		if gateway, ok := netip.AddrFromSlice(found.Gw); ok {
			r.gateway = gateway.Unmap()
		}
	default:
		r.err = errors.New("the route is none to another machine")
	}
	return r
}

func lookUp(to netip.Addr, options netlink.RouteGetOptions) (netlink.Route, error) {
	routes, err := netlink.RouteGetWithOptions(to.AsSlice(), &options)
	if err != nil {
		return netlink.Route{}, err
	}
	if len(routes) == 0 {
		return netlink.Route{}, unix.ENETUNREACH
	}
	return routes[0], nil
}

func linkName(index int) string {
	link, err := net.InterfaceByIndex(index)
	if err != nil {
		return ""
	}
	return link.Name
}

// forwards reads the setting that the kernel looks at: for IPv4 that of the interface, for IPv6 the one for all, and since
// Linux 6.17 the interface's force_forwarding.
func forwards(family policy.Family, input string) bool {
	if family == policy.IPv4 {
		return setting("ipv4", input, "forwarding") != "0"
	}
	return setting("ipv6", "all", "forwarding") != "0" || setting("ipv6", input, "force_forwarding") == "1"
}

func setting(family, name, key string) string {
	text, err := os.ReadFile(filepath.Join("/proc/sys/net", family, "conf", name, key))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// addressFor is the address that masquerading gives a packet: for IPv4 the interface's first primary address in the next hop's
// network, or its first one (inet_select_addr), for IPv6 what the kernel would choose as a source itself.
func (r route) addressFor(destination netip.Addr) (netip.Addr, error) {
	link, err := netlink.LinkByName(r.output)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("interface %s: %w", r.output, err)
	}
	if destination.Is6() {
		return chosen6(destination, r.output)
	}
	hop := destination
	if r.gateway.Is4() {
		hop = r.gateway
	}
	addresses, err := netlink.AddrList(link, unix.AF_INET)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("addresses of %s: %w", r.output, err)
	}
	var first netip.Addr
	for _, a := range addresses {
		addr, ok := netip.AddrFromSlice(a.IP.To4())
		if !ok || a.Flags&unix.IFA_F_SECONDARY != 0 || a.Scope != unix.RT_SCOPE_UNIVERSE {
			continue
		}
		network := a.IPNet
		if a.Peer != nil {
			network = a.Peer
		}
		if network.Contains(hop.AsSlice()) {
			return addr, nil
		}
		if !first.IsValid() {
			first = addr
		}
	}
	if !first.IsValid() {
		return netip.Addr{}, errNoAddress
	}
	return first, nil
}

// errNoAddress: the kernel then takes an address of another interface, or drops the packet.
var errNoAddress = errors.New("it has no address of global scope")

// chosen6 asks for a route without a source: where no route has a preferred one, the kernel answers with the source that it
// would choose (ipv6_dev_get_saddr), which is what masquerading does as well.
func chosen6(destination netip.Addr, output string) (netip.Addr, error) {
	if entry, err := lookUp(destination, netlink.RouteGetOptions{Oif: output, FIBMatch: true}); err == nil && entry.Src != nil {
		return netip.Addr{}, errors.New("the route has a preferred source, which masquerading does not take")
	}
	found, err := lookUp(destination, netlink.RouteGetOptions{Oif: output})
	if err != nil {
		return netip.Addr{}, err
	}
	addr, ok := netip.AddrFromSlice(found.Src)
	if !ok {
		return netip.Addr{}, errNoAddress
	}
	return addr.Unmap(), nil
}
