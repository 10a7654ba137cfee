package conflicts

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// query is a node with two pods of each family and the default policy, unless a test says otherwise.
func query() Query {
	s := policy.DefaultSettings()
	s.IPv6 = true
	return Query{
		Policy:  policy.Default(s),
		Sources: addrs("10.244.0.5", "10.244.0.6", "fd00:244::5", "fd00:244::6"),
	}
}

func addrs(texts ...string) []netip.Addr {
	out := make([]netip.Addr, len(texts))
	for i, text := range texts {
		out[i] = netip.MustParseAddr(text)
	}
	return out
}

func prefixes(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		out[i] = netip.MustParsePrefix(text)
	}
	return out
}

// listing is a table nat as lines of `iptables -S`. Reading it counts.
type listing struct {
	chains map[string][][]string
	reads  []string
}

func parse(text string) *listing {
	l := &listing{chains: map[string][][]string{}}
	for line := range strings.Lines(text) {
		words := words(line)
		if len(words) > 2 && words[0] == "-A" {
			l.chains[words[1]] = append(l.chains[words[1]], words[2:])
		}
	}
	return l
}

// words splits a line at blanks, but not within double quotes.
func words(line string) []string {
	var all []string
	for i, part := range strings.Split(strings.TrimSpace(line), `"`) {
		if i%2 == 1 {
			all = append(all, part)
			continue
		}
		all = append(all, strings.Fields(part)...)
	}
	return all
}

func (l *listing) base(family policy.Family) base {
	b := base{name: "nat", chain: "POSTROUTING", family: family, priority: 100}
	b.read = func(_ context.Context, chain string) ([]rule, error) {
		l.reads = append(l.reads, chain)
		return b.fromListing("iptables-nft", chain, l.chains[chain]), nil
	}
	return b
}

// fakeNode has eth0 with the default route, pod0 with the pods behind it, cni0 with 10.244.0.0/16, and two ipsets. What the
// kernel's node says is tested with packets.
type fakeNode struct{}

var fakeSets = map[string]ranges{
	"cali40masq-ipam-pools":   {rangeOf(netip.MustParsePrefix("10.244.0.0/16"))},
	"cali40all-ipam-pools":    {rangeOf(netip.MustParsePrefix("10.244.0.0/16"))},
	"kube-router-pod-subnets": {rangeOf(netip.MustParsePrefix("10.244.0.0/16"))},
}

func (fakeNode) interfaces() []string          { return []string{"lo", "eth0", "cni0", "pod0"} }
func (fakeNode) local() ranges                 { return ranges{rangeOf(netip.MustParsePrefix("10.0.1.5/32"))} }
func (fakeNode) interfaceOf(netip.Addr) string { return "pod0" }
func (fakeNode) routesBySource() bool          { return false }

func (fakeNode) splitByOutput(_ []netip.Addr, to ranges, names []string) (both, rest ranges, ok bool) {
	local, outside := to.split(ranges{rangeOf(netip.MustParsePrefix("10.244.0.0/16")), rangeOf(netip.MustParsePrefix("fd00:244::/64"))})
	cni, eth := matchesName(names, "cni0"), matchesName(names, "eth0")
	switch {
	case cni && eth:
		return to, nil, true
	case cni:
		return local, outside, true
	case eth:
		return outside, local, true
	}
	return nil, to, true
}

func (fakeNode) members(set string) func(netip.Addr) bool {
	if members, ok := fakeSets[set]; ok {
		return members.contain
	}
	return nil
}

func (fakeNode) splitBySet(set string, to ranges) (both, rest ranges, ok bool) {
	members, ok := fakeSets[set]
	both, rest = to.split(members)
	return both, rest, ok
}

// search walks a listing and returns "OWNER: CHAIN RULE-NUMBER" for each conflict.
func search(t *testing.T, q Query, family policy.Family, l *listing) []string {
	t.Helper()
	q.OwnChains = append(q.OwnChains, q.Policy.Settings.Chain, q.Policy.Settings.PodsChain())
	w := newWalker(q, l.base(family), fakeNode{})
	var got []string
	for _, c := range w.walk(t.Context()) {
		got = append(got, c.Owner+": "+strings.Replace(strings.TrimPrefix(c.Where, "iptables-nft table nat chain "), " rule ", " ", 1))
	}
	for _, err := range w.errs {
		got = append(got, err.Error())
	}
	return got
}

// walkTest is a table nat and the conflicts in it, as search returns them.
type walkTest struct {
	name   string
	family policy.Family
	rules  string
	change func(*Query)
	want   []string
}

func (test walkTest) run(t *testing.T) {
	q := query()
	if test.change != nil {
		test.change(&q)
	}
	if test.family == 0 {
		test.family = policy.IPv4
	}
	if diff := cmp.Diff(test.want, search(t, q, test.family, parse(test.rules))); diff != "" {
		t.Errorf("conflicts (-want +got):\n%s", diff)
	}
}
