package nftables

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// target is what our table should hold: a desired state in this backend's terms.
type target struct {
	sets   []set
	chains []chain // the base chain, the shared chain, and those that maps lead to
}

// chain is a chain with its rules.
type chain struct {
	nfnl.Chain
	rules []nfnl.Rule
}

// aim computes the target, in which up to limit ranges of a family are counted. It depends on what is there in three ways. An address
// with two owners stays with the one who has it. Destinations that differ from those in use go into the second set where a set in use
// must not be changed, and everywhere if they begin or cease to be counted. And with KeepChain, which is how a plugin speaks of one pod, a shared chain that is filled stays as it is, with all that it leads to, and so does all
// of a family that the state does not speak of.
func aim(want ruleset.State, got *reading, c changes, limit int) target {
	var t target
	var shares []share
	var led []chain
	s := want.Settings
	base := chain{Chain: nfnl.Chain{
		Table: tableName, Name: baseChain,
		Type: "nat", Hook: unix.NF_INET_POST_ROUTING, Priority: srcnat, Accept: true,
	}}
	for _, f := range families {
		table, on := tableOf(want, f)
		switch {
		case on:
			t.sets = append(t.sets, podSets(want, table, got)...)
			base.rules = append(base.rules, rootRules(s, f)...)
		case want.KeepChain && got.has(f):
			t.sets = append(t.sets, got.setsOf(f, holdsPods)...)
			base.rules = append(base.rules, got.rootsOf(f)...)
		default:
			continue
		}
		if on && !stays(want, table, got) {
			sets, counts := policySets(want, table, got, c, limit)
			shares = append(shares, share{f, sets[len(sets)-1].Name, chosenSources(want.Settings, table), counts})
			t.sets = append(t.sets, sets...)
			if len(table.Groups) > 0 {
				led = append(led, groupChains(s, table, chosenSources(s, table))...)
			}
			continue
		}
		name, _ := got.inUse(s, f, destinationSets(f))
		counts := slices.ContainsFunc(got.rules[s.Chain], func(r nfnl.Rule) bool { return nfnl.UsesSet(r, masqueradeSet(f)) })
		shares = append(shares, share{f, name, got.looksUpSources(s, f), counts})
		t.sets = append(t.sets, got.setsOf(f, func(name string) bool { return !holdsPods(name) })...)
		led = append(led, got.chainsOf(f)...)
	}
	shared := chain{Chain: nfnl.Chain{Table: tableName, Name: s.Chain}, rules: sharedRules(want, got, shares)}
	t.chains = append([]chain{base, shared}, led...)
	return t
}

func tableOf(want ruleset.State, f policy.Family) (ruleset.Table, bool) {
	for _, table := range want.Tables {
		if table.Family == f {
			return table, true
		}
	}
	return ruleset.Table{}, false
}

// stays reports whether what the policy says about a family is left as it is, whoever wrote it.
func stays(want ruleset.State, table ruleset.Table, got *reading) bool {
	s, f := want.Settings, table.Family
	return want.KeepChain && got.chainState(s, f) == backend.ChainFilled && (got.looksUpSources(s, f) || !translates(table))
}

// chosenSources reports whether pods have, or may get, a source address that they chose.
func chosenSources(s policy.Settings, table ruleset.Table) bool {
	return s.PodAnnotations.Allows(policy.SourceAddressesAnnotation) || translates(table)
}

func translates(table ruleset.Table) bool {
	return slices.ContainsFunc(table.Pods, func(p ruleset.Pod) bool { return p.Translated.IsValid() })
}

// srcnat is the priority that nft calls by that name (NF_IP_PRI_NAT_SRC).
const srcnat = 100

// podSets are those that hold pods.
func podSets(want ruleset.State, table ruleset.Table, got *reading) (sets []set) {
	s, f := want.Settings, table.Family
	if s.Sources != policy.SourcesAll {
		pods := set{Set: setOf(podsSet(f), f)}
		pods.members = claim(table.Pods, got.sets[pods.Name].members)
		sets = append(sets, pods)
		if s.NodeTraffic {
			sets = append(sets, set{Set: setOf(optedOutSet(f), f), members: optedOutMembers(table.OptedOut)})
		}
	}
	if chosenSources(s, table) || stays(want, table, got) && got.looksUpSources(s, f) {
		sources := set{Set: setOf(sourcesMap(f), f)}
		sources.members = claimSources(table.Pods, got.sets[podsSet(f)].members)
		sets = append(sets, sources)
	}
	return sets
}

// policySets are those that hold what the policy says, the set or map of destinations last. counts is true where one of them is to count
// what prefixes masquerade.
func policySets(want ruleset.State, table ruleset.Table, got *reading, c changes, limit int) (sets []set, counts bool) {
	f := table.Family
	names, keepMulticast := keepSets(f), want.Settings.Sources != policy.SourcesAll
	var value func(policy.Destination) string
	if len(table.Groups) > 0 {
		names, value = verdictMaps(f), values(table)
	}
	name, inUse := got.inUse(want.Settings, f, names)
	all := fold(f, table.Destinations, keepMulticast, limit, value)
	kept := set{Set: setOf(name, f), members: all.keep}
	kept.Counted = all.counted
	now := got.sets[name]
	if inUse && c != asItIs && (!sameCount(now.Set, kept.Set) || c == SecondSet && !slices.Equal(kept.members, now.members)) {
		kept.Name = otherOf(names, name)
	}
	sets = poolsOf(table)
	if counts = len(all.except) > 0; counts {
		excepted := set{Set: setOf(masqueradeSet(f), f), members: all.except}
		excepted.Counted = true
		sets = append(sets, excepted)
	}
	return append(sets, kept), counts
}

// otherOf returns the other one of two names.
func otherOf(names []string, name string) string {
	if name == names[0] {
		return names[1]
	}
	return names[0]
}

// sharedRules leaves a chain alone that is filled for all families, whoever wrote what is in it.
func sharedRules(want ruleset.State, got *reading, shares []share) []nfnl.Rule {
	for _, table := range want.Tables {
		if !stays(want, table, got) {
			return chainRules(want.Settings, want.OutputInterfaces, shares)
		}
	}
	if !want.KeepChain {
		return chainRules(want.Settings, want.OutputInterfaces, shares)
	}
	return got.rules[want.Settings.Chain]
}
