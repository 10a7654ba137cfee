package backendtest

import (
	"net/netip"
	"strings"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// lateLink is an interface that comes while the rules stand, and lateHost whom it leads to.
const lateLink = "late0"

var lateHost = netip.MustParseAddr("198.51.100.2")

// outputInterfaces sends from a pod through the node's two interfaces, and through one that is not there at first. The node's
// interfaces have the names of the hosts that they lead to.
func outputInterfaces(f *fixture) {
	f.withNode()
	pod := f.node.AddPod(f.T, "pod")
	f.node.Internet.Run(f.T, "ip", "addr", "add", lateHost.String()+"/32", "dev", "lo")
	f.node.Internet.Serve(f.T, lateHost)
	for _, c := range []struct {
		patterns             policy.Interfaces
		internet, corp, late bool // masqueraded
	}{
		{nil, true, true, true},
		{policy.Interfaces{"internet"}, true, false, false},
		{policy.Interfaces{"!corp"}, true, false, true},
		{policy.Interfaces{"int*"}, true, false, false},
		{policy.Interfaces{"inter"}, false, false, false},
		{policy.Interfaces{"!c*", "!late0"}, true, false, false},
		{policy.Interfaces{"internet", "late0"}, true, false, true},
		{policy.Interfaces{"cor*", "l*", "!late1"}, false, true, true},
		{policy.Interfaces{"corp", "internet", "!c*"}, true, false, false},
		{policy.Interfaces{"nothing0", "nothing*"}, false, false, false},
		{policy.Interfaces{"!nothing0"}, true, true, true},
		{nil, true, true, true},
	} {
		p := f.policy()
		p.NonMasquerade = nil
		p.OutputInterfaces = c.patterns
		f.settle(f.state(p, attachmentOf(pod)))
		f.from(c.patterns, pod, f.node.Internet.IPv4, nodeInternet4, c.internet)
		f.from(c.patterns, pod, f.node.Corp.IPv4, nodeCorp4, c.corp)
		f.from(c.patterns, pod, f.node.Internet.IPv6, nodeInternet6, c.internet && f.s.IPv6)
		f.addLate()
		f.from(c.patterns, pod, lateHost, netip.MustParseAddr("198.51.100.1"), c.late)
		f.space.Run(f.T, "ip", "link", "del", lateLink)
	}
}

// from wants the pod to be seen by its own address or by the node's.
func (f *fixture) from(patterns policy.Interfaces, pod *netnstest.Pod, to, node netip.Addr, masqueraded bool) {
	f.Helper()
	want := own(pod, to)
	if masqueraded {
		want = node
	}
	if got := f.seenBy(pod.Space, "udp", to, want); got != want {
		f.Errorf("outputInterfaces %q: %s sees %s, want %s", patterns, to, got, want)
	}
}

// addLate makes an interface that leads to the internet's host in another way.
func (f *fixture) addLate() {
	f.Helper()
	f.space.Run(f.T, "ip", "link", "add", lateLink, "index", "190", "type", "veth", "peer", "name", lateLink, "netns", f.node.Internet.Name)
	f.space.Run(f.T, "sh", "-ec", "ip addr add 198.51.100.1/24 dev late0; ip link set late0 up")
	f.node.Internet.Run(f.T, "ip", "link", "set", "late0", "up")
	for _, s := range []*netnstest.Space{f.space, f.node.Internet.Space} { // what is sent before the kernel noticed the other end is lost
		netnstest.Eventually(f.T, netnstest.Limit(5*time.Second), "the late interface is up", func() bool {
			return strings.Contains(s.Run(f.T, "ip", "-o", "link", "show", "late0"), "state UP")
		})
	}
}
