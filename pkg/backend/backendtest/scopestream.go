package backendtest

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// scopeStream changes whom and where the policy is about, to and fro, while pods open connections about which every one of these
// policies says the same. None may be seen from another address.
func scopeStream(f *fixture) {
	f.withNode()
	pod, out := f.node.AddPod(f.T, "pod"), f.node.AddPod(f.T, "out")
	grouped := f.node.Internet.AddAddr(f.T, "203.0.113.9")
	f.space.Run(f.T, "ip", "addr", "add", "192.0.2.65/32", "dev", "internet")
	f.addresses = []netip.Addr{nodeInternet4, netip.MustParseAddr("192.0.2.65")}
	base := f.s
	state := func(change func(p *policy.Policy)) ruleset.State {
		f.s = base
		p := f.policy()
		p.Egress = []policy.Egress{{Destinations: prefixes("203.0.113.0/24"), SourceAddresses: prefixes("192.0.2.64/28")}}
		change(&p)
		f.s = p.Settings
		on := f.hostNode()
		on.OptedOut = []attachment.Attachment{attachmentOf(out)}
		return ruleset.Build(p, []attachment.Attachment{attachmentOf(pod)}, on)
	}
	scopes := []func(p *policy.Policy){
		func(*policy.Policy) {},
		func(p *policy.Policy) { p.Settings.NodeTraffic = true },
		func(p *policy.Policy) { p.OutputInterfaces = policy.Interfaces{"internet"} },
		func(p *policy.Policy) {
			p.OutputInterfaces, p.Settings.NodeTraffic = policy.Interfaces{"eth9", "inter*"}, true
		},
		func(p *policy.Policy) { p.OutputInterfaces = policy.Interfaces{"!corp"} },
		func(p *policy.Policy) {
			p.Settings.PodAnnotations = policy.AllowedAnnotations([]string{policy.SourceAddressesAnnotation})
		},
		func(p *policy.Policy) { // another number for the group
			p.Egress = append([]policy.Egress{{Destinations: prefixes("100.64.0.0/10"), SourceAddresses: prefixes("192.0.2.64/28")}}, p.Egress...)
		},
	}
	kept := stream{f, out, f.node.Internet.IPv4, own(out, nodeInternet4)}
	masqueraded, translated := stream{f, pod, f.node.Internet.IPv4, nodeInternet4}, stream{f, pod, grouped, f.addresses[1]}
	f.settle(state(scopes[0]))
	f.during(func() { f.eachToEach(state, scopes) }, masqueraded, translated, kept)
	all := func(p *policy.Policy) { p.Settings.Sources = policy.SourcesAll } // which is about the pod that opted out as well
	f.during(func() { f.eachToEach(state, append(scopes[:4:4], all)) }, masqueraded, translated)
}

// eachToEach goes from each scope to each other one.
func (f *fixture) eachToEach(state func(func(*policy.Policy)) ruleset.State, scopes []func(*policy.Policy)) {
	f.Helper()
	for i := range scopes {
		for j := range i {
			f.sync(state(scopes[i]))
			f.sync(state(scopes[j]))
		}
	}
}

// stream is a pod that opens one connection after the other.
type stream struct {
	*fixture
	pod  *netnstest.Pod
	to   netip.Addr
	want netip.Addr
}

// enough is how many connections a stream opens at least while changes are made.
const enough = 20

// during keeps streams up while changes are made, and made again, until every stream has met enough of them: beside other work a
// machine can make all of them before a stream has opened its second connection.
func (f *fixture) during(changes func(), streams ...stream) {
	f.Helper()
	var stop atomic.Bool
	var wg sync.WaitGroup
	wrong, connections := make([]error, len(streams)), make([]atomic.Int64, len(streams))
	for i, s := range streams {
		wg.Go(func() {
			for !stop.Load() && wrong[i] == nil {
				// All streams may stand still for a second or two, when other programs have the machine.
				got, err := s.pod.SeenWithin(20*time.Second, "udp", s.to)
				if n := connections[i].Add(1); err != nil || got.Addr() != s.want {
					wrong[i] = fmt.Errorf("connection %d: %s sees %s (%w), want %s", n, s.to, got, err, s.want)
					stop.Store(true)
				}
			}
		})
	}
	few := func() bool {
		for i := range connections {
			if connections[i].Load() < enough {
				return true
			}
		}
		return false
	}
	rounds := 0
	for end := time.Now().Add(netnstest.Limit(time.Minute)); rounds == 0 || few() && !stop.Load() && time.Now().Before(end); rounds++ {
		changes()
	}
	stop.Store(true)
	wg.Wait()
	for i, err := range wrong {
		n := connections[i].Load()
		if err != nil {
			f.Error(err)
		} else if n < enough {
			f.Errorf("only %d connections to %s during %d rounds of changes", n, streams[i].to, rounds)
		}
		f.Logf("%d connections to %s during %d rounds of changes", n, streams[i].to, rounds)
	}
}
