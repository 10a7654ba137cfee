package backendtest

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// egressNode is a node with several addresses towards the internet host, which has an address in each of several ranges.
type egressNode struct {
	*fixture
	pods    []*netnstest.Pod
	chosen  map[*netnstest.Pod][]netip.Prefix // the source addresses of the pods' annotations
	hosts   map[string]netip.Addr
	patient bool // waits for an answer that must not come
}

func (f *fixture) egressNode() *egressNode {
	f.Helper()
	f.withNode()
	f.addresses = []netip.Addr{nodeInternet4, nodeInternet6, nodeCorp4}
	n := &egressNode{fixture: f, chosen: map[*netnstest.Pod][]netip.Prefix{}, hosts: map[string]netip.Addr{}}
	for _, address := range []string{"192.0.2.33", "192.0.2.34", "192.0.2.35", "192.0.2.65", "2001:db8::33", "2001:db8::34", "2001:db8::65"} {
		n.add(address)
	}
	for i := range 4 { // neighbours, so that they differ in their last bits
		n.pods = append(n.pods, f.node.AddPod(f.T, fmt.Sprintf("pod%d", i)))
	}
	for _, host := range []string{"203.0.113.9", "203.0.113.77", "203.0.114.9", "198.51.100.9", "100.127.0.9", "10.77.0.9", "2001:db8:77::9", "2001:db8:78::9"} {
		n.hosts[host] = f.node.Internet.AddAddr(f.T, host)
	}
	n.meet()
	return n
}

// meet sends from every pod to every host once. A new link's IPv6 neighbours may not answer in its first second or two.
func (n *egressNode) meet() {
	n.Helper()
	for _, pod := range n.pods {
		for _, host := range n.hosts {
			_, err := pod.Seen("udp", host)
			for range 3 {
				if err != nil {
					_, err = pod.Seen("udp", host)
				}
			}
			n.must(err, "udp to "+host.String()+" without rules")
		}
	}
}

// add gives the node an address.
func (n *egressNode) add(text string) {
	n.Helper()
	address := netip.MustParseAddr(text)
	// With preferred_lft 0 the kernel does not choose an IPv6 address by itself.
	n.space.Run(n.T, "ip", "addr", "add", netip.PrefixFrom(address, address.BitLen()).String(), "dev", "internet", "nodad", "preferred_lft", "0")
	n.addresses = append(n.addresses, address)
}

// removeAddress takes one from it.
func (n *egressNode) removeAddress(text string) {
	n.Helper()
	address := netip.MustParseAddr(text)
	n.space.Run(n.T, "ip", "addr", "del", netip.PrefixFrom(address, address.BitLen()).String(), "dev", "internet")
	var left []netip.Addr
	for _, a := range n.addresses {
		if a != address {
			left = append(left, a)
		}
	}
	n.addresses = left
}

// egress has a group with a single address, one with a pool of three, one that lacks its addresses and masquerades, and one that
// drops; prefixes of either kind inside those of others; and groups of which only one family has addresses.
func (n *egressNode) egress() policy.Policy {
	p := n.policy()
	p.Masquerade = prefixes("203.0.113.64/26")
	p.Egress = []policy.Egress{
		{Destinations: prefixes("203.0.113.0/24", "10.77.0.0/16"), SourceAddresses: prefixes("192.0.2.64/28")},
		{Destinations: prefixes("203.0.114.0/24"), SourceAddresses: prefixes("192.0.2.32/28")},
		{Destinations: prefixes("198.51.100.0/24"), SourceAddresses: prefixes("172.31.0.0/16")},
		{Destinations: prefixes("100.64.0.0/10"), SourceAddresses: prefixes("172.31.0.0/16"), WhenMissing: policy.MissingDrop},
	}
	if n.s.IPv6 {
		p.Egress[0].Destinations = append(p.Egress[0].Destinations, prefixes("2001:db8:77::/48")...)
		p.Egress[0].SourceAddresses = append(p.Egress[0].SourceAddresses, prefixes("2001:db8::65/128")...)
		p.Egress[1].Destinations = append(p.Egress[1].Destinations, prefixes("2001:db8:78::/48")...)
		p.Egress[1].SourceAddresses = append(p.Egress[1].SourceAddresses, prefixes("2001:db8::32/124")...)
	}
	return p
}

// apply makes the node's rules those of the policy, with all pods attached.
func (n *egressNode) apply(p policy.Policy) {
	n.Helper()
	n.settle(n.state(p, n.attachments()...))
}

// look sends from every pod to every host and compares with the policy's answer. That nothing comes takes a while to tell, so only one
// pod tries, and only with patience.
func (n *egressNode) look(p policy.Policy) {
	n.Helper()
	to := []netip.Addr{n.node.Internet.IPv4, n.node.Corp.IPv4, n.node.Internet.IPv6}
	for _, host := range n.hosts {
		to = append(to, host)
	}
	for _, host := range to {
		for i, pod := range n.pods {
			source := own(pod, host)
			output := "internet"
			if host == n.node.Corp.IPv4 {
				output = "corp"
			}
			outcome := p.Decide(policy.Packet{Source: source, Destination: host, Output: output, Attached: true, Chosen: n.chosen[pod]}, n.addresses)
			switch outcome.Verdict {
			case policy.Keep:
				n.seen(pod, host, source)
			case policy.Translate:
				n.seen(pod, host, outcome.Address)
			case policy.Drop:
				if i > 0 || !n.patient {
					break
				}
				if got, err := pod.Seen("udp", host); err == nil {
					n.Errorf("%s sees %s, want nothing: %s", host, got, outcome)
				}
			default:
				n.seen(pod, host, n.masqueraded(host))
			}
		}
	}
}

func (n *egressNode) attachments() (all []attachment.Attachment) {
	for _, pod := range n.pods {
		all = append(all, n.attachment(pod))
	}
	return all
}

func (n *egressNode) attachment(pod *netnstest.Pod) attachment.Attachment {
	a := attachmentOf(pod)
	a.SourceAddresses = n.chosen[pod]
	return a
}

func (n *egressNode) masqueraded(host netip.Addr) netip.Addr {
	switch {
	case host == n.node.Corp.IPv4:
		return nodeCorp4
	case host.Is4():
		return nodeInternet4
	}
	return nodeInternet6
}

func egressPackets(f *fixture) {
	n := f.egressNode()
	n.patient = true
	p := n.egress()
	n.apply(p)
	n.look(p)
	n.apply(f.policy())
	n.look(f.policy())
}

// egressEverything is the form for a whole node.
func egressEverything(f *fixture) {
	n := f.egressNode()
	p := f.policy()
	p.Egress = []policy.Egress{{Destinations: prefixes("0.0.0.0/0"), SourceAddresses: prefixes("192.0.2.65/32")}}
	if f.s.IPv6 {
		p.Egress = append(p.Egress, policy.Egress{Destinations: prefixes("::/0"), SourceAddresses: prefixes("2001:db8::/64")})
	}
	n.apply(p)
	n.look(p)
}

func egressPorts(f *fixture) {
	n := f.egressNode()
	f.s.ToPorts = policy.PortRanges{{First: 2000, Last: 2009}, {First: 3000, Last: 3029}}
	p := n.egress()
	n.apply(p)
	hosts := []string{"203.0.113.9", "203.0.114.9", "198.51.100.9"}
	if f.s.IPv6 {
		hosts = append(hosts, "2001:db8:77::9", "2001:db8:78::9")
	}
	for _, text := range hosts {
		host := n.hosts[text]
		for range 10 {
			for _, network := range []string{"udp", "tcp"} {
				got, err := n.pods[0].Seen(network, host)
				f.must(err, network+" to "+text)
				if port := got.Port(); (port < 2000 || port > 2009) && (port < 3000 || port > 3029) {
					f.Errorf("%s to %s is seen from %s, want a port of %s", network, text, got, f.s.ToPorts)
				}
			}
		}
	}
	n.look(p)
}

// egressAddressesChange takes addresses from the node and gives them back. What is not about them counts on.
func egressAddressesChange(f *fixture) {
	n := f.egressNode()
	p := n.egress()
	n.apply(p)
	n.look(p)
	before := f.countedRules()
	n.removeAddress("192.0.2.65")
	n.apply(p)
	after := f.countedRules()
	same := 0
	for rule, packets := range before {
		if now, there := after[rule]; there && now != packets {
			f.Errorf("%q counted %d, and without an address of one group %d", rule, packets, now)
		} else if there && packets > 0 {
			same++
		}
	}
	if same < 3 {
		f.Errorf("of %v only %d rules are in %v", before, same, after)
	}
	n.look(p)
	for _, address := range []string{"192.0.2.66", "192.0.2.67", "192.0.2.68"} { // a pool of 1, 2 and 3
		n.add(address)
		n.apply(p)
		n.look(p)
	}
}

// egressFollowsPolicy goes from each of several policies to each other one.
func egressFollowsPolicy(f *fixture) {
	n := f.egressNode()
	all := []policy.Policy{f.policy(), n.egress(), n.egress(), n.egress(), n.egress()}
	all[2].Egress = all[2].Egress[1:] // another number for each group
	all[3].Egress[0].SourceAddresses, all[3].Egress[1].SourceAddresses = all[3].Egress[1].SourceAddresses, all[3].Egress[0].SourceAddresses
	all[4].Egress[3].WhenMissing = ""
	all[4].OutputInterfaces = policy.Interfaces{"internet"}
	for _, from := range all {
		for _, to := range all {
			f.settle(f.state(from, n.attachments()...))
			f.settle(f.state(to, n.attachments()...))
		}
		n.lookAt(from, n.hosts["203.0.113.9"], n.hosts["203.0.114.9"])
	}
	f.remove(f.s.Families()...)
	if f.ours() {
		f.Errorf("Remove left\n%s", f.dump())
	}
}

// lookAt makes the policy the one in force and looks from one pod.
func (n *egressNode) lookAt(p policy.Policy, hosts ...netip.Addr) {
	n.Helper()
	n.apply(p)
	for _, host := range hosts {
		outcome := p.Decide(policy.Packet{Source: own(n.pods[1], host), Destination: host, Output: "internet", Attached: true}, n.addresses)
		want := n.masqueraded(host)
		if outcome.Verdict == policy.Translate {
			want = outcome.Address
		}
		n.seen(n.pods[1], host, want)
	}
}

// egressKeepsChain: a plugin leaves the groups as they are, and makes them where there is nothing.
func egressKeepsChain(f *fixture) {
	n := f.egressNode()
	p := n.egress()
	want := f.state(p, n.attachments()...)
	want.KeepChain = true
	f.settle(want)
	n.look(p)
	before := f.dump()
	other := f.policy()
	want = f.state(other, n.attachments()...)
	want.KeepChain = true
	if f.sync(want) {
		f.Errorf("Apply with KeepChain changed\n%s\ninto\n%s", before, f.dump())
	}
	for _, family := range f.s.Families() {
		want := f.state(other, n.attachments()...).Of(family)
		want.KeepChain = true
		if f.sync(want); f.dump() != before {
			f.Errorf("%s alone changed\n%s\ninto\n%s", family, before, f.dump())
		}
	}
	f.flush(f.s.Chain)
	want = f.state(p, n.attachments()...)
	want.KeepChain = true
	f.settle(want)
	f.must(f.detach(attachmentOf(n.pods[0])), "Detach")
	f.must(f.attach(attachmentOf(n.pods[0])), "Attach")
	n.look(p)
}

// egressFamilyGoes takes IPv6 out and leaves IPv4 as it is.
func egressFamilyGoes(f *fixture) {
	if !f.s.IPv6 {
		return
	}
	n := f.egressNode()
	p := n.egress()
	n.apply(p)
	f.remove(policy.IPv6)
	f.s.IPv6, p.Settings.IPv6 = false, false
	four := p
	four.Egress = nil
	for _, e := range p.Egress {
		e.Destinations, e.SourceAddresses = ofIPv4(e.Destinations), ofIPv4(e.SourceAddresses)
		four.Egress = append(four.Egress, e)
	}
	if f.sync(f.state(four, n.attachments()...)) {
		f.Errorf("removing IPv6 took something from IPv4; now there is\n%s", f.dump())
	}
	n.look(four)
}

func ofIPv4(all []netip.Prefix) (own []netip.Prefix) {
	for _, p := range all {
		if p.Addr().Is4() {
			own = append(own, p)
		}
	}
	return own
}

// egressTraffic counts what is translated and dropped apart from the rest.
func egressTraffic(f *fixture) {
	n := f.egressNode()
	p := n.egress()
	n.apply(p)
	var totals backend.Totals
	totals.Begin(f.traffic())
	connect := func(host string, times int) {
		for range times {
			_, _ = n.pods[0].Seen("udp", n.hosts[host])
		}
	}
	connect("203.0.113.9", 3) // translated
	connect("203.0.114.9", 2)
	connect("203.0.113.77", 4) // an exception
	connect("198.51.100.9", 1) // lacks its address
	connect("100.127.0.9", 1)  // dropped
	_, _ = n.pods[0].Seen("udp", f.node.Corp.IPv4)
	f.countersTell(map[backend.Decision]uint64{
		{Family: policy.IPv4, Verdict: policy.Translate, Prefix: p.Egress[0].Destinations[0]}: 3,
		{Family: policy.IPv4, Verdict: policy.Translate, Prefix: p.Egress[1].Destinations[0]}: 2,
		{Family: policy.IPv4, Verdict: policy.Translate, Prefix: p.Egress[2].Destinations[0]}: 1,
		{Family: policy.IPv4, Verdict: policy.Translate, Prefix: p.Egress[3].Destinations[0]}: 1,
		{Family: policy.IPv4, Verdict: policy.Masquerade, Prefix: p.Masquerade[0]}:            4,
		{Family: policy.IPv4, Verdict: policy.Keep, Prefix: prefixes("10.0.0.0/8")[0]}:        1,
	})
	check := func(when string, want map[policy.Verdict]uint64) {
		totals.Add(f.traffic())
		for verdict, packets := range want {
			if got := totals.Of(backend.Decision{Family: policy.IPv4, Verdict: verdict}).Packets; got != packets {
				f.Errorf("%s, %s: %d packets, want %d; now there is\n%s", when, verdict, got, packets, f.dump())
			}
		}
	}
	want := map[policy.Verdict]uint64{policy.Keep: 1, policy.Masquerade: 5, policy.Translate: 5, policy.Drop: 1}
	check("at first", want)
	p.Egress = p.Egress[1:] // what was translated by the first group is masqueraded, or kept
	n.apply(p)
	check("with a group less", want)
	connect("203.0.113.9", 1)
	connect("203.0.114.9", 1)
	want[policy.Masquerade]++
	want[policy.Translate]++
	check("after more of both", want)
}

// countedRules are the sums of equal rules.
func (f *fixture) countedRules() map[string]uint64 {
	f.Helper()
	sums := map[string]uint64{}
	for _, c := range f.counters(policy.IPv4) {
		sums[c.Rule] += c.Packets
	}
	return sums
}

func (f *fixture) counters(family policy.Family) (counters []backend.Counter) {
	f.Helper()
	f.must(f.in(func(ctx context.Context) (err error) {
		counters, err = f.backend.Counters(ctx, f.s, family)
		return err
	}), "Counters")
	for _, c := range counters {
		if c.Rule == "" || strings.Contains(c.Rule, "a rule of ") {
			f.Errorf("a rule without a text: %+v", c)
		}
	}
	return counters
}
