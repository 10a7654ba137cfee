package bench

import (
	"fmt"
	"net/netip"
	"runtime/debug"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// egressGroups is how many groups a policy has in TestEgress.
const egressGroups = 64

// TestEgress compares what a new connection costs with many egress groups against the same policy without one, with nftables: to
// destinations that are in no group, in a group with one address, and in one with a pool of addresses.
func TestEgress(t *testing.T) {
	outDir(t)
	c := cell{prefixes: 64, pods: 110}
	none := egressPath(t, "no groups", c, nil)
	groups := []*path{
		egressPath(t, "groups of other destinations", c, groupsIn(netip.MustParsePrefix("198.18.0.0/15"), 1)),
		egressPath(t, "groups with one address", c, groupsIn(worldPrefix(), 1)),
		egressPath(t, "groups with three addresses", c, groupsIn(worldPrefix(), 3)),
	}
	paths := append([]*path{none}, groups...)
	for _, p := range paths {
		p.calibrate(t)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for _, order := range turns(rounds(60), len(paths)) {
		forgetAll(t, paths)
		for _, i := range order {
			paths[i].measure(t)
		}
	}
	r := newReport("Egress: processor time of a new connection, nftables")
	times := &table{head: []string{fmt.Sprintf("%d groups, %s prefixes × pods", egressGroups, c), "µs", "× no groups"}}
	for _, p := range paths {
		times.add(p.name, number(median(p.costs)), number(ratio(p.costs, none.costs)))
	}
	r.section("Medians, and medians of pairs", times)
	for _, p := range groups {
		r.goal(p.name+", × no groups", 1.1, ratio(p.costs, none.costs))
	}
	r.done(t, "egress.md")
}

// worldPrefix is where all connections go.
func worldPrefix() netip.Prefix { return netip.PrefixFrom(address(world), 8).Masked() }

// groupsIn divides a prefix among groups that have so many of the node's addresses.
func groupsIn(whole netip.Prefix, pool int) (all []policy.Egress) {
	const bits = 6
	for i := range uint32(egressGroups) {
		first := number32(whole.Addr()) + i<<(32-whole.Bits()-bits)
		all = append(all, policy.Egress{
			Destinations: []netip.Prefix{netip.PrefixFrom(address(first), whole.Bits()+bits)},
			// The second prefix, of which the node has nothing, tells the groups apart.
			SourceAddresses: []netip.Prefix{poolPrefix(pool), netip.PrefixFrom(address(number32(netip.MustParseAddr("100.64.0.0"))+i), 32)},
		})
	}
	return all
}

// poolPrefix is the prefix that holds so many of the addresses that egressPath gives the node.
func poolPrefix(pool int) netip.Prefix {
	if pool == 1 {
		return netip.MustParsePrefix("192.0.2.1/32")
	}
	return netip.MustParsePrefix("192.0.2.64/30")
}

func number32(a netip.Addr) (n uint32) {
	for _, b := range a.As4() {
		n = n<<8 | uint32(b)
	}
	return n
}

func egressPath(t testing.TB, name string, c cell, groups []policy.Egress) *path {
	t.Helper()
	h := newAgent(t, backend.NFTables, c.pods)
	for _, a := range []string{"192.0.2.64", "192.0.2.65", "192.0.2.66"} {
		h.exec(t, Command{Args: []string{"ip", "addr", "add", a + "/32", "dev", "internet"}})
	}
	p := policyOf(c.prefixes, 1)
	p.Egress = groups
	h.sync(t, backend.NFTables, p)
	return newPath(t, name, h, c)
}
