package backendtest

import (
	"context"
	"errors"
	"net/netip"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// nodeSource is an address of the node's by which it would be seen if it were not masqueraded.
var nodeSource = netip.MustParseAddr("10.244.77.7")

// nodeTraffic goes through whom the policy is about: attached pods, pods that opted out, others behind the node, and the node.
func nodeTraffic(f *fixture) {
	f.withNode()
	pod, out, other := f.node.AddPod(f.T, "pod"), f.node.AddPod(f.T, "out"), f.node.AddPod(f.T, "other")
	f.space.Run(f.T, "sh", "-ec", "ip addr add 10.244.77.7/32 dev lo; ip route add 192.0.2.2/32 dev internet src 10.244.77.7; ip route add 10.99.0.2/32 dev corp src 10.244.77.7")
	internet, corp := f.node.Internet, f.node.Corp
	state := func(attached ...*netnstest.Pod) ruleset.State {
		var all []attachment.Attachment
		for _, p := range attached {
			all = append(all, attachmentOf(p))
		}
		return ruleset.Build(f.policy(), all, ruleset.Node{OptedOut: []attachment.Attachment{attachmentOf(out)}})
	}
	expect := func(when string, optedOut, others, node bool) {
		f.Helper()
		f.Log(when)
		f.seen(pod, internet.IPv4, nodeInternet4)
		f.seen(out, internet.IPv4, choose(optedOut, nodeInternet4, own(out, internet.IPv4)))
		f.seen(other, internet.IPv4, choose(others, nodeInternet4, own(other, internet.IPv4)))
		if f.s.IPv6 {
			f.seen(out, internet.IPv6, choose(optedOut, nodeInternet6, own(out, internet.IPv6)))
			f.seen(other, internet.IPv6, choose(others, nodeInternet6, own(other, internet.IPv6)))
		}
		for _, p := range []*netnstest.Pod{pod, out, other} {
			f.seen(p, corp.IPv4, own(p, corp.IPv4))
		}
		f.nodeSeen(internet.IPv4, choose(node, nodeInternet4, nodeSource))
		f.nodeSeen(corp.IPv4, nodeSource)
		if got := f.multicastSeen(nodeSource, netip.MustParseAddr("239.1.2.3")); got != choose(f.s.Sources == policy.SourcesAll, nodeInternet4, nodeSource) {
			f.Errorf("multicast is seen from %s", got)
		}
	}
	f.settle(state(pod))
	expect("without", false, false, false)
	f.s.NodeTraffic = true
	f.settle(state(pod))
	expect("with the node's traffic", false, true, true)
	f.settle(state(pod, out))
	expect("with an address that another owner attached", true, true, true)
	f.must(f.detach(attachmentOf(out)), "Detach")
	expect("after its Detach", false, true, true)
	f.s.NodeTraffic = false
	f.settle(state(pod))
	expect("without again", false, false, false)
	f.s.NodeTraffic, f.s.Sources = true, policy.SourcesAll
	f.settle(state(pod))
	expect("with all sources", true, true, true)
	f.s.Sources = policy.SourcesPods
	f.settle(state(pod))
	expect("with pods and the node's traffic again", false, true, true)
	f.remove(f.s.Families()...)
	if f.ours() {
		f.Errorf("Remove left\n%s", f.dump())
	}
}

func choose(first bool, a, b netip.Addr) netip.Addr {
	if first {
		return a
	}
	return b
}

// nodeSeen is seen for the node itself.
func (f *fixture) nodeSeen(to, want netip.Addr) {
	f.Helper()
	for _, network := range []string{"udp", "tcp"} {
		if got := f.seenBy(f.space, network, to, want); got != want {
			f.Errorf("%s sees %s of the node over %s, want %s", to, got, network, want)
		}
	}
}

// attachWithNodeTraffic attaches pods and addresses that opted out while the rules stand, and takes both out again.
func attachWithNodeTraffic(f *fixture) {
	f.withNode()
	pod, out := f.node.AddPod(f.T, "pod"), f.node.AddPod(f.T, "out")
	internet := f.node.Internet
	f.s.NodeTraffic = true
	optedOut := func(a attachment.Attachment) ruleset.State {
		want := ruleset.Build(policy.Policy{Settings: f.s}, nil, ruleset.Node{OptedOut: []attachment.Attachment{a}})
		return want
	}
	attach := func() error {
		return f.in(func(ctx context.Context) error { return f.backend.Attach(ctx, optedOut(attachmentOf(out))) })
	}
	verify := func() error {
		return f.in(func(ctx context.Context) error { return f.backend.Verify(ctx, optedOut(attachmentOf(out))) })
	}
	if err := attach(); !errors.Is(err, backend.ErrIncomplete) {
		f.Errorf("Attach of an address that opted out, on nothing: %v, want ErrIncomplete", err)
	}
	f.settle(f.state(f.policy()))
	bare := f.dump()
	f.seen(out, internet.IPv4, nodeInternet4)
	var missing *backend.Missing
	if err := verify(); !errors.As(err, &missing) || missing.Part != backend.PartPod {
		f.Errorf("Verify of an address that is to opt out: %v, want a missing %s", err, backend.PartPod)
	}
	for range 2 {
		f.must(attach(), "Attach of an address that opted out")
		f.must(f.attach(attachmentOf(pod)), "Attach")
	}
	f.must(verify(), "Verify of an address that opted out")
	f.must(f.verify(attachmentOf(pod)), "Verify")
	f.seen(out, internet.IPv4, own(out, internet.IPv4))
	f.seen(pod, internet.IPv4, nodeInternet4)
	if f.sync(ruleset.Build(f.policy(), []attachment.Attachment{attachmentOf(pod)}, ruleset.Node{OptedOut: []attachment.Attachment{attachmentOf(out)}})) {
		f.Errorf("after Attach of both, Apply had to write; now there is\n%s", f.dump())
	}
	f.must(f.detach(attachmentOf(pod)), "Detach")
	for range 2 {
		f.must(f.in(func(ctx context.Context) error { return f.backend.Release(ctx, f.s, out.Addrs) }), "Release")
	}
	f.seen(out, internet.IPv4, nodeInternet4)
	if f.sync(f.state(f.policy())) {
		f.Errorf("with both gone again, Apply had to write; before there was\n%s\nand now\n%s", bare, f.dump())
	}
}
