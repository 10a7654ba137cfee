package backendtest

import (
	"context"
	"net/netip"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

func probeOnly(f *fixture) {
	f.Helper()
	for _, family := range f.s.Families() {
		f.must(f.in(func(ctx context.Context) error {
			_, err := f.backend.Probe(ctx, family)
			return err
		}), "Probe")
	}
}

// The addresses by which the node is known to its hosts.
var (
	nodeInternet4 = netip.MustParseAddr("192.0.2.1")
	nodeInternet6 = netip.MustParseAddr("2001:db8::1")
	nodeCorp4     = netip.MustParseAddr("10.99.0.1")
)

// attachmentOf describes a pod that has a network.
func attachmentOf(p *netnstest.Pod) attachment.Attachment {
	return attachment.Attachment{
		Owner:     attachment.Owner{Network: "net", ContainerID: p.Name, IfName: "eth0"},
		Addresses: p.Addrs,
	}
}

// own returns the pod's address of the family of a destination.
func own(p *netnstest.Pod, to netip.Addr) netip.Addr {
	i := slices.IndexFunc(p.Addrs, func(a netip.Addr) bool { return a.Is4() == to.Is4() })
	return p.Addrs[i]
}

// seen asks a host by which address it sees the pod, over new connections of both protocols.
func (f *fixture) seen(p *netnstest.Pod, to, want netip.Addr) {
	f.Helper()
	for _, network := range []string{"udp", "tcp"} {
		if got := f.seenBy(p.Space, network, to, want); got != want {
			f.Errorf("%s sees %s over %s, want %s", to, got, network, want)
		}
	}
}

// seenBy asks once more where the answer is not the wanted one: a socket may by chance have the port of a former one, whose connection
// is still tracked and keeps the address that another policy gave it.
func (f *fixture) seenBy(s *netnstest.Space, network string, to, want netip.Addr) (seen netip.Addr) {
	f.Helper()
	for range 2 {
		got, err := s.Seen(network, to)
		f.must(err, network+" to "+to.String())
		if seen = got.Addr(); seen == want {
			break
		}
	}
	return seen
}

func packetVerdicts(f *fixture) {
	f.withNode()
	pod, unattached := f.node.AddPod(f.T, "pod"), f.node.AddPod(f.T, "unattached")
	inside := f.node.Corp.AddAddr(f.T, "10.50.0.9")
	beside := f.node.Corp.AddAddr(f.T, "10.51.0.9")
	p := f.policy()
	p.Masquerade = prefixes("10.50.0.0/16")
	f.settle(f.state(p))
	f.must(f.attach(attachmentOf(pod)), "Attach")

	internet, corp := f.node.Internet, f.node.Corp
	f.seen(pod, internet.IPv4, nodeInternet4)
	f.seen(pod, corp.IPv4, own(pod, corp.IPv4))
	f.seen(pod, inside, nodeCorp4)
	f.seen(pod, beside, own(pod, beside))
	f.seen(unattached, internet.IPv4, own(unattached, internet.IPv4))
	if f.s.IPv6 {
		f.seen(pod, internet.IPv6, nodeInternet6)
	} else {
		f.seen(pod, internet.IPv6, own(pod, internet.IPv6))
	}
	f.seen(pod, corp.IPv6, own(pod, corp.IPv6))

	f.must(f.detach(attachmentOf(pod)), "Detach")
	f.seen(pod, internet.IPv4, own(pod, internet.IPv4))
}

func packetsOfAllSources(f *fixture) {
	f.withNode()
	f.s.Sources = policy.SourcesAll
	f.settle(f.state(f.policy()))
	pod := f.node.AddPod(f.T, "pod")
	internet, corp := f.node.Internet, f.node.Corp
	f.seen(pod, internet.IPv4, nodeInternet4)
	f.seen(pod, corp.IPv4, own(pod, corp.IPv4))
	if f.s.IPv6 {
		f.seen(pod, internet.IPv6, nodeInternet6)
	} else {
		f.seen(pod, internet.IPv6, own(pod, internet.IPv6))
	}
	f.seen(pod, corp.IPv6, own(pod, corp.IPv6))
}

func packetPorts(f *fixture) {
	f.withNode()
	pod := f.node.AddPod(f.T, "pod")
	f.s.ToPorts = policy.PortRanges{{First: 2000, Last: 2009}, {First: 3000, Last: 3029}}
	f.settle(f.state(f.policy(), attachmentOf(pod)))
	for range 10 {
		for _, network := range []string{"udp", "tcp"} {
			got, err := pod.Seen(network, f.node.Internet.IPv4)
			f.must(err, network)
			if port := got.Port(); got.Addr() != nodeInternet4 || (port < 2000 || port > 2009) && (port < 3000 || port > 3029) {
				f.Errorf("%s is seen from %s, want a port of %s", network, got, f.s.ToPorts)
			}
		}
	}
}

func countersSurvive(f *fixture) {
	f.withNode()
	pod := f.node.AddPod(f.T, "pod")
	want := f.state(f.policy(), attachmentOf(pod))
	f.sync(want)
	for range 3 {
		f.seen(pod, f.node.Internet.IPv4, nodeInternet4)
		f.seen(pod, f.node.Corp.IPv4, own(pod, f.node.Corp.IPv4))
	}
	before := f.dump()
	if counted := f.counted(6); counted < 2 {
		f.Errorf("%d rules with 6 connections, want one for either verdict, in\n%s", counted, before)
	}
	f.settle(want)
	if after := f.dump(); after != before {
		f.Errorf("an Apply without a change made\n%s\nof\n%s", after, before)
	}
	if counted := f.counted(6); counted < 2 {
		f.Errorf("%d rules with 6 connections after an Apply", counted)
	}
}

// counted returns how many rules have counted that many packets.
func (f *fixture) counted(packets uint64) (rules int) {
	f.Helper()
	f.must(f.in(func(ctx context.Context) error {
		counters, err := f.backend.Counters(ctx, f.s, policy.IPv4)
		for _, c := range counters {
			if c.Rule != "" && c.Packets == packets {
				rules++
			}
		}
		return err
	}), "Counters")
	return rules
}
