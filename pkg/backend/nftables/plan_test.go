package nftables

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// after is the reading that a target leaves, with rules that have handles.
func after(t target) *reading {
	r := &reading{table: true, chains: map[string]nfnl.Chain{}, rules: map[string][]nfnl.Rule{}, sets: map[string]set{}}
	for _, c := range t.chains {
		r.chains[c.Name] = c.Chain
		for i, rule := range c.rules {
			rule.Handle = uint64(i + 1)
			r.rules[c.Name] = append(r.rules[c.Name], rule)
		}
	}
	for _, s := range t.sets {
		r.sets[s.Name] = s
	}
	return r
}

func TestPlan(t *testing.T) {
	nothing := func() *reading { return &reading{} }
	of := func(state ruleset.State) func() *reading {
		return func() *reading { return after(aim(state, &reading{}, InPlace, countLimit)) }
	}
	defaults := goldenStates["default"]()
	second := func(state ruleset.State) func() *reading {
		return func() *reading {
			former := after(aim(defaults, &reading{}, InPlace, countLimit))
			return after(aim(state, former, SecondSet, countLimit))
		}
	}
	noTen := goldenStates["default"]()
	noTen.Tables[0].Destinations = slices.Clone(noTen.Tables[0].Destinations[:1])
	random := goldenStates["default"]()
	random.Settings.RandomFully = false
	dual := goldenStates["dual-stack"]()
	egress := func(addresses string, groups ...string) ruleset.State {
		p := policy.Default(policy.DefaultSettings())
		p.NonMasquerade = prefixes("10.0.0.0/8")
		for _, g := range groups {
			to, from, _ := strings.Cut(g, " from ")
			p.Egress = append(p.Egress, policy.Egress{Destinations: prefixes(to), SourceAddresses: prefixes(from)})
		}
		return ruleset.Build(p, nil, ruleset.Node{Addresses: addressesOf(addresses)})
	}
	const one, two = "20.0.0.0/8 from 192.0.2.0/28", "30.0.0.0/8 from 192.0.3.0/28"
	for _, test := range []struct {
		name      string
		got       func() *reading
		want      ruleset.State
		way       changes
		fill, use []string
	}{
		{"installation", nothing, defaults, InPlace, []string{
			"create table ip-masq-agent", "create set pods4", "create set keep4", "add to set pods4", "add to set keep4",
		}, []string{
			"create chain postrouting", "create chain IP-MASQ-AGENT",
			"add rule to postrouting: ip saddr @pods4 goto IP-MASQ-AGENT",
			"add rule to IP-MASQ-AGENT: ip daddr @keep4 counter return",
			"add rule to IP-MASQ-AGENT: fib daddr type local counter return",
			"add rule to IP-MASQ-AGENT: counter masquerade fully-random",
		}},
		{"nothing changed", of(defaults), defaults, InPlace, nil, nil},
		{"destinations changed", of(defaults), noTen, InPlace, []string{"delete from set keep4"}, nil},
		{"destinations changed in a second set", of(defaults), noTen, SecondSet, []string{
			"create set keep4.b", "add to set keep4.b",
		}, []string{
			"add rule to IP-MASQ-AGENT: ip daddr @keep4.b counter return", "delete rule from IP-MASQ-AGENT", "delete set keep4",
		}},
		{"destinations changed back", second(noTen), defaults, SecondSet, []string{
			"create set keep4", "add to set keep4",
		}, []string{
			"add rule to IP-MASQ-AGENT: ip daddr @keep4 counter return", "delete rule from IP-MASQ-AGENT", "delete set keep4.b",
		}},
		{"nothing changed in the second set", second(noTen), noTen, SecondSet, nil, nil},
		{"nothing changed in the second set, in place", second(noTen), noTen, InPlace, nil, nil},
		{"destinations of the second set changed in place", second(noTen), defaults, InPlace, []string{"add to set keep4.b"}, nil},
		{"a setting changed", of(defaults), random, InPlace, nil, []string{
			"add rule to IP-MASQ-AGENT: counter masquerade", "delete rule from IP-MASQ-AGENT",
		}},
		{"IPv6 goes", of(dual), defaults, InPlace, []string{"delete from set pods4"}, []string{
			"delete rule from postrouting", "delete rule from IP-MASQ-AGENT", "delete rule from IP-MASQ-AGENT",
			"delete rule from IP-MASQ-AGENT", "delete rule from IP-MASQ-AGENT", "delete set keep6", "delete set pods6",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := test.got()
			p := plans(aim(test.want, got, test.way, countLimit), got)
			if diff := cmp.Diff([][]string{test.fill, test.use}, [][]string{steps(p.fill), steps(p.use)}); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	for _, test := range []struct {
		name             string
		got              func() *reading
		want             ruleset.State
		way              changes
		fill, use, clean []string
	}{
		{"a group comes", of(egress("192.0.2.1 192.0.3.1", one)), egress("192.0.2.1 192.0.3.1", one, two), InPlace, []string{
			"create chain egress4/192.0.3.0/28",
			"add rule to egress4/192.0.3.0/28: meta nfproto ipv4 fib daddr type local counter return",
			"add rule to egress4/192.0.3.0/28: meta nfproto ipv4 counter snat ip to 192.0.3.1 fully-random",
			"add to set verdicts4",
		}, nil, nil},
		{"the groups have other numbers", of(egress("192.0.2.1 192.0.3.1", one, two)), egress("192.0.2.1 192.0.3.1", two, one), InPlace, nil, nil, nil},
		{"a group goes", of(egress("192.0.2.1 192.0.3.1", one, two)), egress("192.0.2.1 192.0.3.1", two), InPlace, []string{
			"delete from set verdicts4",
		}, nil, []string{
			"delete rule from egress4/192.0.2.0/28", "delete rule from egress4/192.0.2.0/28", "delete chain egress4/192.0.2.0/28",
		}},
		{"a group goes, with a second map", of(egress("192.0.2.1 192.0.3.1", one, two)), egress("192.0.2.1 192.0.3.1", two), SecondSet, []string{
			"create set verdicts4.b", "add to set verdicts4.b",
		}, []string{
			"add rule to IP-MASQ-AGENT: ip daddr vmap @verdicts4.b", "delete rule from IP-MASQ-AGENT",
		}, []string{
			"delete rule from egress4/192.0.2.0/28", "delete rule from egress4/192.0.2.0/28",
			"flush set verdicts4", "delete set verdicts4", "delete chain egress4/192.0.2.0/28",
		}},
		{"the node's address changes", of(egress("192.0.2.1 192.0.3.1", one, two)), egress("192.0.2.2 192.0.3.1", one, two), InPlace, nil, []string{
			"add rule to egress4/192.0.2.0/28: meta nfproto ipv4 counter snat ip to 192.0.2.2 fully-random", "delete rule from egress4/192.0.2.0/28",
		}, nil},
		{"the node has one more address", of(egress("192.0.2.1", one)), egress("192.0.2.1 192.0.2.2", one), InPlace, []string{
			"create set pool4/192.0.2.0/28/83d3ee40", "add to set pool4/192.0.2.0/28/83d3ee40",
		}, []string{
			"add rule to egress4/192.0.2.0/28: meta nfproto ipv4 counter snat ip to ip saddr & 0.0.0.1 map @pool4/192.0.2.0/28/83d3ee40 fully-random",
			"delete rule from egress4/192.0.2.0/28",
		}, nil},
		{"one address of a pool changes", of(egress("192.0.2.1 192.0.2.2", one)), egress("192.0.2.1 192.0.2.3", one), InPlace, []string{
			"create set pool4/192.0.2.0/28/84d3efd3", "add to set pool4/192.0.2.0/28/84d3efd3",
		}, []string{
			"add rule to egress4/192.0.2.0/28: meta nfproto ipv4 counter snat ip to ip saddr & 0.0.0.1 map @pool4/192.0.2.0/28/84d3efd3 fully-random",
			"delete rule from egress4/192.0.2.0/28",
		}, []string{
			"flush set pool4/192.0.2.0/28/83d3ee40", "delete set pool4/192.0.2.0/28/83d3ee40",
		}},
		{"there are no groups any more", of(egress("192.0.2.1", one)), egress(""), InPlace, []string{
			"create set keep4", "add to set keep4",
		}, []string{
			"add rule to IP-MASQ-AGENT: ip daddr @keep4 counter return", "delete rule from IP-MASQ-AGENT",
		}, []string{
			"delete rule from egress4/192.0.2.0/28", "delete rule from egress4/192.0.2.0/28", "delete rule from egress4/keep",
			"flush set verdicts4", "delete set verdicts4", "delete chain egress4/192.0.2.0/28", "delete chain egress4/keep",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := test.got()
			p := plans(aim(test.want, got, test.way, countLimit), got)
			if diff := cmp.Diff([][]string{test.fill, test.use, test.clean}, [][]string{steps(p.fill), steps(p.use), steps(p.clean)}); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func addressesOf(text string) []netip.Addr { return addresses(strings.Fields(text)...) }

func steps(b *nfnl.Batch) []string { return append([]string(nil), b.Steps()...) }

func TestClaim(t *testing.T) {
	pod := func(owner, address string) ruleset.Pod {
		return ruleset.Pod{Owner: attachment.Owner{Network: owner}.ID(), Address: addresses(address)[0], Label: owner}
	}
	a, b := pod("a", "10.0.0.1"), pod("b", "10.0.0.1")
	if a.Owner > b.Owner {
		a, b = b, a
	}
	other := pod("a", "10.0.0.2")
	for _, test := range []struct {
		name string
		pods []ruleset.Pod
		now  []member
		want []member
	}{
		{"nobody has it", []ruleset.Pod{other, b, a}, nil, []member{sharedMember(a), podMember(other)}},
		{"the first has it", []ruleset.Pod{b, a}, []member{podMember(a)}, []member{sharedMember(a)}},
		{"the second has it", []ruleset.Pod{a, b}, []member{sharedMember(b)}, []member{sharedMember(b)}},
		{"it was shared", []ruleset.Pod{b}, []member{sharedMember(b)}, []member{podMember(b)}},
		{"an attachment that is not wanted has it", []ruleset.Pod{b}, []member{podMember(a)}, []member{podMember(b)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := claim(test.pods, test.now); !slices.Equal(got, test.want) {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}

func TestMembersOf(t *testing.T) {
	interval := setOf(keepSets(policy.IPv4)[0], policy.IPv4)
	el := func(address string, end bool) nfnl.Element { return nfnl.Element{Key: addresses(address)[0], End: end} }
	for name, test := range map[string]struct {
		elements []nfnl.Element
		want     string
	}{
		"in reverse":         {[]nfnl.Element{el("11.0.0.0", true), el("10.0.0.0", false)}, "10.0.0.0/8"},
		"reported twice":     {[]nfnl.Element{el("10.0.0.0", false), el("11.0.0.0", true), el("10.0.0.0", false)}, "10.0.0.0/8"},
		"to the very end":    {[]nfnl.Element{el("240.0.0.0", false)}, "240.0.0.0/4"},
		"an end at zero":     {[]nfnl.Element{el("0.0.0.0", true), el("10.0.0.0", false), el("10.0.0.1", true)}, "10.0.0.0"},
		"one beside another": {[]nfnl.Element{el("10.0.0.0", false), el("10.0.0.1", false), el("10.0.0.1", true), el("10.0.0.2", true)}, "10.0.0.0 10.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			var got string
			for _, text := range texts(membersOf(interval, test.elements)) {
				got += " " + text
			}
			if got != " "+test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}
