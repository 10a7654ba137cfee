package conflicts

import (
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// node answers what a rule may depend on beside the packet. Nothing is asked that no rule depends on.
type node interface {
	interfaces() []string
	// local are the node's own addresses: packets to them do not leave it.
	local() ranges
	// interfaceOf is the one over which a pod is reached, empty where there is none.
	interfaceOf(pod netip.Addr) string
	// routesBySource reports whether pods may differ in where their packets leave.
	routesBySource() bool
	// splitByOutput divides addresses by whether packets of the pods to them leave by one of the interfaces; those to which they
	// do not leave at all are in neither part. It returns false where that cannot be told.
	splitByOutput(pods []netip.Addr, to ranges, names []string) (both, rest ranges, ok bool)
	// members returns a function that tells whether an address is in an ipset, nil where that cannot be told.
	members(set string) func(netip.Addr) bool
	// splitBySet divides addresses by whether they are in an ipset. Of a large one a few addresses are asked and the others are
	// left out of both.
	splitBySet(set string, to ranges) (both, rest ranges, ok bool)
}

// kernelNode is the node of the calling thread's network namespace, as its kernel tells it during one search.
type kernelNode struct {
	family   policy.Family
	names    map[int]string // of the interfaces, by index
	inputs   map[netip.Addr]string
	bySource *bool
	segments ranges // in which all addresses have one route
	outputs  map[routeQuestion]string
	sets     map[string]*ipset
}

// routeQuestion is a destination, and a pod where its address matters.
type routeQuestion struct{ to, pod netip.Addr }

func newKernelNode(family policy.Family) *kernelNode {
	return &kernelNode{
		family: family, inputs: map[netip.Addr]string{}, outputs: map[routeQuestion]string{}, sets: map[string]*ipset{},
	}
}

func (k *kernelNode) netlinkFamily() int {
	if k.family == policy.IPv6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func (k *kernelNode) interfaces() []string {
	if k.names == nil {
		k.names = map[int]string{}
		links, _ := netlink.LinkList() // without an answer, rules for interfaces are rules for none
		for _, link := range links {
			k.names[link.Attrs().Index] = link.Attrs().Name
		}
	}
	names := make([]string, 0, len(k.names))
	for _, name := range k.names {
		names = append(names, name)
	}
	return names
}

func (k *kernelNode) local() ranges {
	var own []addrRange
	addresses, _ := netlink.AddrList(nil, k.netlinkFamily()) // without an answer a rule for one of them may be an alarm too many
	for _, a := range addresses {
		if addr, ok := netip.AddrFromSlice(a.IP); ok {
			own = append(own, addrRange{addr.Unmap(), addr.Unmap()})
		}
	}
	return rangesOf(own...)
}

func (k *kernelNode) interfaceOf(pod netip.Addr) string {
	name, asked := k.inputs[pod]
	if !asked {
		name = k.route(pod, netlink.RouteGetOptions{})
		k.inputs[pod] = name
	}
	return name
}

// route returns the interface by which packets leave, empty where they do not.
func (k *kernelNode) route(to netip.Addr, options netlink.RouteGetOptions) string {
	k.interfaces()
	routes, err := netlink.RouteGetWithOptions(to.AsSlice(), &options)
	if err != nil || len(routes) == 0 || routes[0].Type != unix.RTN_UNICAST {
		return ""
	}
	return k.names[routes[0].LinkIndex]
}

func (k *kernelNode) routesBySource() bool {
	if k.bySource == nil {
		rules, err := netlink.RuleList(k.netlinkFamily())
		by := err != nil || slices.ContainsFunc(rules, func(r netlink.Rule) bool { return r.Src != nil || r.IifName != "" || r.Dst != nil })
		k.bySource = &by
	}
	return *k.bySource
}

// maxRoutes bounds how many routes are asked for in one question, a few microseconds each.
const maxRoutes = 20_000

func (k *kernelNode) splitByOutput(pods []netip.Addr, to ranges, names []string) (both, rest ranges, ok bool) {
	if k.segments == nil {
		if k.segments, ok = routeSegments(k.netlinkFamily()); !ok {
			return nil, nil, false
		}
	}
	var leaving, staying ranges
	asked := 0
	for _, segment := range k.segments {
		part, _ := to.split(ranges{segment})
		if len(part) == 0 {
			continue
		}
		if asked++; asked > maxRoutes {
			return nil, nil, false
		}
		switch name := k.outputTo(pods, part[0].first); {
		case name == "":
			staying = append(staying, segment)
		case matchesName(names, name):
			leaving = append(leaving, segment)
		}
	}
	both, rest = to.split(leaving)
	_, rest = rest.split(staying)
	return both, rest, true
}

// outputTo asks as for a packet that is forwarded, and where the kernel would not forward it now, as for one of the node.
func (k *kernelNode) outputTo(pods []netip.Addr, to netip.Addr) string {
	question := routeQuestion{to: to}
	var options netlink.RouteGetOptions
	if len(pods) > 0 {
		options = netlink.RouteGetOptions{SrcAddr: pods[0].AsSlice(), Iif: k.interfaceOf(pods[0])}
		if k.routesBySource() {
			question.pod = pods[0]
		}
	}
	name, asked := k.outputs[question]
	if asked {
		return name
	}
	if options.Iif != "" {
		name = k.route(to, options)
	}
	if name == "" {
		name = k.route(to, netlink.RouteGetOptions{})
	}
	k.outputs[question] = name
	return name
}

// routeSegments cuts all addresses where a route of any table begins or ends.
func routeSegments(family int) (ranges, bool) {
	routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, false
	}
	whole := rangeOf(everywhere(policy.IPv4))
	if family == unix.AF_INET6 {
		whole = rangeOf(everywhere(policy.IPv6))
	}
	starts := []netip.Addr{whole.first}
	for _, route := range routes {
		if route.Dst == nil {
			continue
		}
		addr, _ := netip.AddrFromSlice(route.Dst.IP)
		bits, _ := route.Dst.Mask.Size()
		if prefix := netip.PrefixFrom(addr.Unmap(), bits); prefix.IsValid() && addr.Unmap().BitLen() == whole.first.BitLen() {
			r := rangeOf(prefix)
			starts = append(starts, r.first)
			if next := r.last.Next(); next.IsValid() {
				starts = append(starts, next)
			}
		}
	}
	slices.SortFunc(starts, netip.Addr.Compare)
	starts = slices.Compact(starts)
	segments := make(ranges, len(starts))
	for i, start := range starts {
		segments[i] = addrRange{start, whole.last}
		if i > 0 {
			segments[i-1].last = start.Prev()
		}
	}
	return segments, true
}
