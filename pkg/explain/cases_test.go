package explain

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// modelCase is a policy, a node, its pods, and the first packet of a connection.
type modelCase struct {
	name        string // by which it can be had again
	policy      policy.Policy
	attachments []attachment.Attachment
	optedOut    []attachment.Attachment
	addresses   []netip.Addr // the node's
	protocol    string
	packet      policy.Packet
	chance      uint64
}

// luck is for rules that ask chance.
func (c modelCase) luck() *rand.Rand { return rand.New(rand.NewPCG(c.chance, 7)) }

// state is what the backends render.
func (c modelCase) state() ruleset.State {
	return ruleset.Build(c.policy, c.attachments, ruleset.Node{Addresses: c.addresses, OptedOut: c.optedOut})
}

func (c modelCase) String() string {
	return fmt.Sprintf("%s\npolicy %+v\nattachments %+v\nopted out %+v\nnode %s\n%s packet %+v", c.name, c.policy, c.attachments, c.optedOut, c.addresses, c.protocol, c.packet)
}

// world is what cases are drawn from: addresses that prefixes and packets meet.
type world struct {
	destinations []netip.Addr
	nearby       bool // destinations are drawn near those, too
	pods         []pod
	others       [2]netip.Addr  // an address of each family that is no pod's
	node         []netip.Addr   // addresses that the node may have
	sources      []netip.Prefix // in which egress groups and annotations look for them
	interfaces   []string
	patterns     []string
}

// pod is what becomes an attachment, or a pod that opted out.
type pod struct {
	name      string
	addresses []netip.Addr // one of each family
	optedOut  bool
}

// number reads a variable of the environment: with IPMASQ_MODEL_SEED a test draws other cases, and with IPMASQ_MODEL_CASE one alone.
func number(t *testing.T, variable string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

// eachCase draws cases. Each has a generator of its own, so that it can be had again without those ahead of it.
func (w world) eachCase(t *testing.T, count uint64, test func(c modelCase)) {
	t.Helper()
	seed, first := number(t, "IPMASQ_MODEL_SEED", 1), uint64(0)
	if only := number(t, "IPMASQ_MODEL_CASE", count); only != count {
		first, count = only, only+1
	}
	for i := first; i < count; i++ {
		c := w.draw(rand.New(rand.NewPCG(seed, i)))
		c.name = fmt.Sprintf("IPMASQ_MODEL_SEED=%d IPMASQ_MODEL_CASE=%d", seed, i)
		test(c)
		if t.Failed() {
			t.FailNow()
		}
	}
}

func oneOf[T any](r *rand.Rand, all []T) T { return all[r.IntN(len(all))] }

// some draws up to a number of them, each at most once.
func some[T any](r *rand.Rand, most int, all []T) (drawn []T) {
	for _, i := range r.Perm(len(all))[:r.IntN(min(most, len(all))+1)] {
		drawn = append(drawn, all[i])
	}
	return drawn
}

func (w world) draw(r *rand.Rand) modelCase {
	one := func(of int) bool { return r.IntN(of) == 0 }
	c := modelCase{policy: policy.Policy{Settings: policy.DefaultSettings(), MasqLinkLocal: one(2), MasqLinkLocalIPv6: one(2)}}
	s := &c.policy.Settings
	s.IPv6, s.NodeTraffic, s.RandomFully = !one(5), one(3), !one(3)
	if one(4) {
		s.Sources = policy.SourcesAll
	}
	if one(3) {
		s.ToPorts, _ = policy.ParsePortRanges(oneOf(r, []string{"1024-2000", "1024-2000,3000-3001", "20000-29999,30000-39999,61000-65535"}))
	}
	if !one(3) {
		s.PodAnnotations = policy.AllowedAnnotations([]string{policy.SourceAddressesAnnotation})
	}
	if one(2) {
		c.policy.OutputInterfaces = some(r, 3, w.patterns)
	}
	c.packet.Destination = oneOf(r, w.destinations)
	edges := w.lists(r, &c.policy, c.packet.Destination)
	for _, p := range w.pods {
		a := attachment.Attachment{Owner: attachment.Owner{Network: "pods", ContainerID: p.name, IfName: "eth0"}, Addresses: p.addresses}
		if one(2) {
			a.SourceAddresses = some(r, 2, w.sources)
		}
		if p.optedOut {
			c.optedOut = append(c.optedOut, a)
		} else {
			c.attachments = append(c.attachments, a)
		}
	}
	c.addresses = some(r, len(w.node), w.node)
	c.protocol = oneOf(r, []string{"tcp", "udp", "sctp", "icmp"})
	if w.nearby {
		c.packet.Destination = oneOf(r, edges)
	}
	c.from(r, w)
	c.packet.Output, c.packet.Local, c.chance = oneOf(r, w.interfaces), one(12), r.Uint64()
	return c
}

// from draws the source: a pod, or what is none.
func (c *modelCase) from(r *rand.Rand, w world) {
	family := 0
	if c.packet.Destination.Is6() {
		family = 1
	}
	at := r.IntN(len(w.pods) + 1)
	if at >= len(w.pods)-1 && r.IntN(3) == 0 {
		at = 0 // what is not attached is less of a question
	}
	if at == len(w.pods) {
		c.packet.Source = w.others[family]
		return
	}
	c.packet.Source = w.pods[at].addresses[family]
	c.packet.OptedOut = w.pods[at].optedOut
	for _, a := range c.attachments {
		if slices.Contains(a.Addresses, c.packet.Source) {
			c.packet.Attached, c.packet.Chosen = true, ruleset.Chosen(c.policy.Settings, a)
		}
	}
}

// lists draws the lists of destinations, in which no prefix stands twice and many contain one address, and returns addresses at the
// ends of the prefixes.
func (w world) lists(r *rand.Rand, p *policy.Policy, aim netip.Addr) (edges []netip.Addr) {
	taken := map[netip.Prefix]bool{policy.IPv4.LinkLocal(): true, policy.IPv6.LinkLocal(): true}
	draw := func(most int) (prefixes []netip.Prefix) {
		for range r.IntN(most + 1) {
			addr := oneOf(r, w.destinations)
			switch {
			case r.IntN(2) == 0:
				addr = aim
			case w.nearby:
				addr = near(r, addr)
			}
			prefix, _ := addr.Prefix(r.IntN(addr.BitLen() + 1))
			if !taken[prefix] {
				taken[prefix] = true
				prefixes = append(prefixes, prefix)
				edges = append(edges, prefix.Addr(), prefix.Addr().Prev(), addr, addr.Next())
			}
		}
		return prefixes
	}
	p.NonMasquerade, p.Masquerade = draw(5), draw(3)
	for range r.IntN(6) {
		e := policy.Egress{Destinations: draw(3), SourceAddresses: some(r, 3, w.sources)}
		if len(e.Destinations) == 0 || len(e.SourceAddresses) == 0 {
			continue
		}
		e.WhenMissing = oneOf(r, []policy.WhenMissing{"", policy.MissingMasquerade, policy.MissingDrop})
		p.Egress = append(p.Egress, e)
	}
	for range 4 {
		edges = append(edges, near(r, oneOf(r, w.destinations)))
	}
	return slices.DeleteFunc(edges, func(a netip.Addr) bool { return !a.IsValid() })
}

// near turns a few bits, so that prefixes and packets meet.
func near(r *rand.Rand, addr netip.Addr) netip.Addr {
	bytes := addr.AsSlice()
	for i := range bytes {
		bytes[i] ^= byte(r.IntN(2)) << r.IntN(8) * byte(r.IntN(2))
	}
	addr, _ = netip.AddrFromSlice(bytes)
	return addr
}

func addrs(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

func cidrs(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// paperWorld is a world for cases that are not tried on a kernel.
func paperWorld() world {
	w := world{
		destinations: addrs("169.254.0.0", "10.0.0.0", "224.0.0.0", "192.0.2.0", "fe80::", "fc00::", "ff00::", "2001:db8::"), nearby: true,
		others:     [2]netip.Addr(addrs("10.244.0.99", "fd00:244::99")),
		sources:    cidrs("198.18.0.0/15", "198.18.0.0/28", "198.18.0.2/32", "198.19.0.1/32", "203.0.113.0/24", "fd00:18::/64", "fd00:18::/126", "fd00:19::1/128", "fd00:20::/64"),
		interfaces: []string{"eth0", "eth1", "bond0", "bond12", "wg0", "docker0"},
		patterns:   []string{"eth0", "eth*", "bond*", "bond1*", "nosuch0", "!wg0", "!eth1", "!bond0", "!w*"},
	}
	for i := range 6 {
		w.pods = append(w.pods, pod{
			fmt.Sprint("c", i), addrs(fmt.Sprintf("10.244.%d.%d", i, 2+i*37), fmt.Sprintf("fd00:244::%x:%x", i, 2+i*41)), i == 5,
		})
	}
	for i := range 20 { // more than a pool takes
		w.node = append(w.node, addrs(fmt.Sprintf("198.18.0.%d", i), fmt.Sprintf("fd00:18::%x", i))...)
	}
	w.node = append(w.node, addrs("198.19.0.1", "fd00:19::1")...)
	return w
}
