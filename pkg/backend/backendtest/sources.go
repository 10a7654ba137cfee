package backendtest

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// choosing is a node some of whose pods chose: one a single address, one a pool, one what the node lacks, and one nothing.
func (f *fixture) choosing() *egressNode {
	f.Helper()
	f.s.PodAnnotations = policy.AllowedAnnotations([]string{policy.SourceAddressesAnnotation})
	n := f.egressNode()
	n.chosen[n.pods[0]] = prefixes("192.0.2.33/32", "2001:db8::33/128")
	n.chosen[n.pods[1]] = prefixes("192.0.2.32/28", "2001:db8::32/124")
	n.chosen[n.pods[2]] = prefixes("172.31.0.0/16")
	return n
}

// toldSources compares what Observe tells of the pods with what they chose.
func (n *egressNode) toldSources() {
	n.Helper()
	want := n.state(n.policy(), n.attachments()...)
	var pods []ruleset.Pod
	for _, table := range want.Tables {
		pods = append(pods, table.Pods...)
	}
	got := n.observe().Pods()
	ruleset.Sort(got)
	ruleset.Sort(pods)
	if fmt.Sprint(got) != fmt.Sprint(pods) {
		n.Errorf("Observe tells\n%v, want\n%v", got, pods)
	}
}

func chosenSources(f *fixture) {
	n := f.choosing()
	p := n.egress()
	for _, change := range []func(){
		func() {},
		func() { p.Egress = nil },
		func() { p = n.egress(); p.OutputInterfaces = policy.Interfaces{"!corp"} },
		func() { p.Settings.ToPorts = policy.PortRanges{{First: 2000, Last: 2999}, {First: 4000, Last: 4999}} },
		func() { n.removeAddress("192.0.2.33") },
		func() { delete(n.chosen, n.pods[1]) },
	} {
		change()
		f.s = p.Settings
		n.apply(p)
		n.toldSources()
		n.look(p)
	}
	f.s.PodAnnotations = policy.DenyAnnotations
	clear(n.chosen)
	n.apply(f.policy())
	n.look(f.policy())
	f.remove(f.s.Families()...)
	if f.ours() {
		f.Errorf("Remove left\n%s", f.dump())
	}
}

func attachChosenSource(f *fixture) {
	n := f.choosing()
	p := f.policy()
	n.settle(f.state(p, n.attachments()[2:]...))
	bare := f.dump()
	a := n.attachment(n.pods[0])
	for _, known := range [][]ruleset.Pod{nil, f.podsOf(a), ruleset.Pods(a)} {
		f.must(f.attach(a), "Attach")
		f.must(f.attach(n.attachment(n.pods[1])), "Attach of another")
		f.must(f.attach(a), "Attach again")
		f.must(f.verify(a), "Verify")
		n.toldSources()
		n.look(p)
		f.must(f.detach(a, known...), "Detach")
		var missing *backend.Missing
		if err := f.verify(a); !errors.As(err, &missing) || missing.Part != backend.PartPod {
			f.Errorf("Verify after Detach: %v, want a missing pod rule", err)
		}
		f.must(f.detach(n.attachment(n.pods[1])), "Detach of another")
		if len(known) > 0 {
			continue
		}
		f.settle(f.state(p, n.attachments()[2:]...))
	}
	if f.sync(f.state(p, n.attachments()[2:]...)) {
		f.Errorf("left after Detach:\n%s\ninstead of\n%s", f.dump(), bare)
	}
	// Without the agent there is no chain yet that knows of such pods.
	f.remove(f.s.Families()...)
	if err := f.attach(a); !errors.Is(err, backend.ErrIncomplete) {
		f.Errorf("Attach on nothing: %v, want ErrIncomplete", err)
	}
	want := f.state(p, n.attachments()...)
	want.KeepChain = true
	f.settle(want)
	n.look(p)
}

// sharedChosenSource has several owners of one address, of which the last that is left decides.
func sharedChosenSource(f *fixture) {
	n := f.choosing()
	pod := n.pods[0]
	owners := []attachment.Attachment{n.attachment(pod), heir(attachmentOf(pod)), heir(heir(attachmentOf(pod)))}
	owners[2].SourceAddresses = prefixes("192.0.2.34/32")
	want := []netip.Addr{netip.MustParseAddr("192.0.2.33"), nodeInternet4, netip.MustParseAddr("192.0.2.34")}
	f.sync(f.state(f.policy()))
	for stays := range owners {
		for _, a := range owners {
			f.must(f.attach(a), "Attach")
			f.must(f.verify(a), "Verify of the newest")
		}
		for i, a := range owners {
			if i != stays {
				f.must(f.detach(a, f.podsOf(a)...), "Detach")
			}
		}
		f.seen(pod, f.node.Internet.IPv4, want[stays])
		f.must(f.verify(owners[stays]), "Verify of the last")
		f.must(f.detach(owners[stays]), "Detach of the last")
		f.seen(pod, f.node.Internet.IPv4, own(pod, f.node.Internet.IPv4))
	}
}

func chosenOfAllSources(f *fixture) {
	f.s.Sources = policy.SourcesAll
	n := f.choosing()
	p := n.egress()
	n.apply(p)
	n.look(p)
	a := n.attachment(n.pods[0])
	f.must(f.detach(a, f.podsOf(a)...), "Detach")
	n.chosen[n.pods[0]] = nil
	n.look(p)
	n.chosen[n.pods[0]] = a.SourceAddresses
	f.must(f.attach(a), "Attach")
	f.must(f.verify(a), "Verify")
	n.look(p)
}
