package nftables

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// TestStreamDuringGroupChanges sends new flows to destinations that keep their verdict and their group, while others move between
// groups, the groups get other numbers, and one has another address each time. No flow may be seen from the wrong address.
func TestStreamDuringGroupChanges(t *testing.T) {
	netnstest.Require(t)
	flows, changes := int64(60_000), 20
	if os.Getenv(streamLong) != "" {
		flows, changes = 500_000, 50
	}
	for _, way := range ways() {
		for _, size := range []int{64, 1000, 10_000} {
			t.Run(fmt.Sprintf("%s, %d prefixes", way, size), func(t *testing.T) {
				streamGroups(t, way, groupVersions(size, 8), 4, flows, changes)
			})
		}
		t.Run(fmt.Sprintf("%s, groups come and go", way), func(t *testing.T) {
			versions := groupVersions(1000, 8)
			for i := range versions {
				if i%3 == 0 { // then the set is in use, and not the map
					versions[i].Groups = nil
					versions[i].Destinations = slices.DeleteFunc(versions[i].Destinations, func(d policy.Destination) bool { return d.Group > 0 })
				}
			}
			streamGroups(t, way, versions, 2, flows, changes)
		})
	}
}

// streamGroups looks at as many kinds of verdicts, all of which stay the same in all versions.
func streamGroups(t *testing.T, way changes, versions []ruleset.Table, kinds int, flows int64, changes int) {
	s := newStream(t, way)
	pods := s.state(nil).Tables[0].Pods
	for i := range versions {
		versions[i].Pods = pods
	}
	s.applyTable(t, versions[0])
	to, found := groupProbes(s, versions, 800)
	if found != kinds {
		t.Fatalf("destinations of %d kinds, want %d", found, kinds)
	}
	s.watchAll(to)
	applied := 0
	for i := 1; applied < changes || s.seen.Load() < flows; i++ {
		if s.applyTable(t, versions[i%len(versions)]) {
			applied++
		}
	}
	s.finish(t, applied)
}

func (s *stream) applyTable(t *testing.T, table ruleset.Table) bool {
	t.Helper()
	s.state = func([]policy.Destination) ruleset.State {
		return ruleset.State{Settings: policy.DefaultSettings(), Tables: []ruleset.Table{table}}
	}
	return s.apply(t, nil)
}

// groupVersions are lists of destinations as of streamVersions, each of which keeps, is masqueraded inside another, or belongs to one
// of three groups, two of which change an address. In one version in two the groups are listed in reverse.
func groupVersions(size, versions int) []ruleset.Table {
	random := rand.New(rand.NewPCG(uint64(size), 3))
	lists := streamVersions(size, versions)
	label := map[netip.Prefix]int{}
	tables := make([]ruleset.Table, versions)
	for v, list := range lists {
		groups := []ruleset.Group{
			{Number: 1, Sources: prefixes("10.99.0.32/28"), Addresses: addresses("10.99.0.33")},
			{Number: 2, Sources: prefixes("10.99.0.64/28"), Addresses: addresses(fmt.Sprintf("10.99.0.%d", 64+v%2), "10.99.0.66", "10.99.0.67")},
			{Number: 3, Sources: prefixes("10.99.1.0/24"), Addresses: addresses(fmt.Sprintf("10.99.1.%d", 1+v))},
		}
		if v%2 == 1 {
			slices.Reverse(groups)
			for i := range groups {
				groups[i].Number = i + 1
			}
		}
		for i, d := range list {
			l, known := label[d.Prefix]
			if !known {
				l = random.IntN(5)
				label[d.Prefix] = l
			}
			if random.IntN(20) == 0 {
				l = random.IntN(5)
			}
			switch {
			case d.Verdict == policy.Masquerade || l == 4:
			case l < 3:
				number := l + 1
				if v%2 == 1 {
					number = 3 - l
				}
				list[i] = policy.Destination{Prefix: d.Prefix, Verdict: policy.Translate, Group: number}
			}
		}
		tables[v] = ruleset.Table{Family: policy.IPv4, Destinations: list, Groups: groups}
	}
	return tables
}

// groupProbes are addresses at the edges of ranges that have the same value in every version, and it notes in the stream from
// which address each is to be seen. What only the third group has is left out: its address changes.
func groupProbes(s *stream, versions []ruleset.Table, n int) (all []netip.Addr, kinds int) {
	random := rand.New(rand.NewPCG(uint64(n), 4))
	folded := make([][]member, len(versions))
	var candidates []netip.Addr
	for i, v := range versions {
		folded[i] = fold(policy.IPv4, v.Destinations, true, -1, values(v)).keep
		for _, m := range folded[i] {
			candidates = append(candidates, m.first.Prev(), m.first, m.last, m.last.Next())
		}
	}
	random.Shuffle(len(candidates), func(i, j int) { candidates[i], candidates[j] = candidates[j], candidates[i] })
	source := map[string]netip.Addr{
		"":                                 netip.MustParseAddr("10.99.0.1"),
		goToChain(keepChain(policy.IPv4)):  s.pod.Addrs[0],
		goToChain("egress4/10.99.0.32/28"): netip.MustParseAddr("10.99.0.33"),
		goToChain("egress4/10.99.0.64/28"): policy.Choose(addresses("10.99.0.64", "10.99.0.66", "10.99.0.67"), s.pod.Addrs[0]), // the one that stays
	}
	count := map[string]int{}
	for _, a := range candidates {
		value := valueAt(folded[0], a)
		want, stable := source[value]
		if a.As4()[0] != 20 || !stable || count[value] >= n/len(source) ||
			slices.ContainsFunc(folded, func(f []member) bool { return valueAt(f, a) != value }) {
			continue
		}
		if _, twice := s.want[a.As4()]; twice {
			continue
		}
		count[value]++
		s.want[a.As4()] = want.As4()
		all = append(all, a)
	}
	return all, len(count)
}

// valueAt is what a map has for an address.
func valueAt(members []member, a netip.Addr) string {
	i, found := slices.BinarySearchFunc(members, a, func(m member, a netip.Addr) int { return m.last.Compare(a) })
	if found || i < len(members) && members[i].first.Compare(a) <= 0 {
		return members[i].value
	}
	return ""
}
