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
	chains []chain
}

// chain is a chain with its rules.
type chain struct {
	nfnl.Chain
	rules []nfnl.Rule
}

// aim computes the target. It depends on what is there in three ways. An address with two owners stays with the one who has it.
// Destinations that differ from those in use go into the second set where a set in use must not be changed. And with KeepChain, which is how a plugin speaks of one pod, a shared chain that is filled stays as it is, and so does all
// of a family that the state does not speak of.
func aim(want ruleset.State, got *reading, c changes) target {
	var t target
	keep := map[policy.Family]string{}
	s := want.Settings
	base := chain{Chain: nfnl.Chain{
		Table: tableName, Name: baseChain,
		Type: "nat", Hook: unix.NF_INET_POST_ROUTING, Priority: srcnat, Accept: true,
	}}
	for _, f := range families {
		if table, on := tableOf(want, f); on {
			sets := familySets(want, table, got, c)
			keep[f] = sets[len(sets)-1].Name
			t.sets = append(t.sets, sets...)
			base.rules = append(base.rules, rootRule(s, f))
		} else if want.KeepChain {
			keep[f], _ = got.keepInUse(s, f)
			t.sets = append(t.sets, got.setsOf(f)...)
			base.rules = append(base.rules, got.rootsOf(f)...)
		}
	}
	t.chains = []chain{base, {Chain: nfnl.Chain{Table: tableName, Name: s.Chain}, rules: sharedRules(want, got, keep)}}
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

// srcnat is the priority that nft calls by that name (NF_IP_PRI_NAT_SRC).
const srcnat = 100

// familySets returns the set of destinations last.
func familySets(want ruleset.State, table ruleset.Table, got *reading, c changes) []set {
	f := table.Family
	name, inUse := got.keepInUse(want.Settings, f)
	members := got.sets[name].members
	if !want.KeepChain || got.chainState(want.Settings, f) != backend.ChainFilled {
		folded := fold(f, table.Destinations, want.Settings.Sources == policy.SourcesPods)
		if inUse && c == SecondSet && !slices.Equal(folded, members) {
			name = otherOf(keepSets(f), name)
		}
		members = folded
	}
	keep := set{setOf(name, f), members}
	if want.Settings.Sources == policy.SourcesAll {
		return []set{keep}
	}
	pods := set{Set: setOf(podsSet(f), f)}
	pods.members = claim(table.Pods, got.sets[pods.Name].members)
	return []set{pods, keep}
}

// setOf describes one of our sets.
func setOf(name string, f policy.Family) nfnl.Set {
	s := nfnl.Set{Table: tableName, Name: name, Key: nfnl.IPv4Addr, Comment: "pods behind the policy"}
	if f == policy.IPv6 {
		s.Key = nfnl.IPv6Addr
	}
	if slices.Contains(keepSets(f), name) {
		s.Interval, s.Comment = true, "destinations that see the pod's own address; keep and keep.b take turns where a change fills a new set"
	}
	return s
}

// otherOf returns the other one of two names.
func otherOf(names []string, name string) string {
	if name == names[0] {
		return names[1]
	}
	return names[0]
}

// sharedRules leaves a chain alone that is filled for all families, whoever wrote what is in it.
func sharedRules(want ruleset.State, got *reading, keep map[policy.Family]string) []nfnl.Rule {
	var on []policy.Family
	filled := true
	for _, f := range families {
		if _, wanted := tableOf(want, f); wanted {
			on = append(on, f)
			filled = filled && got.chainState(want.Settings, f) == backend.ChainFilled
		} else if want.KeepChain && got.has(f) {
			on = append(on, f)
		}
	}
	if want.KeepChain && filled {
		return got.rules[want.Settings.Chain]
	}
	return chainRules(want.Settings, on, keep)
}
