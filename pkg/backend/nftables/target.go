package nftables

import (
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

// aim computes the target. It depends on what is there in two ways. An address with two owners stays with the one who has it.
// And with KeepChain, which is how a plugin speaks of one pod, a shared chain that is filled stays as it is, and so does all
// of a family that the state does not speak of.
func aim(want ruleset.State, got *reading) target {
	var t target
	s := want.Settings
	base := chain{Chain: nfnl.Chain{
		Table: tableName, Name: baseChain,
		Type: "nat", Hook: unix.NF_INET_POST_ROUTING, Priority: srcnat, Accept: true,
	}}
	for _, f := range families {
		if table, on := tableOf(want, f); on {
			t.sets = append(t.sets, familySets(want, table, got)...)
			base.rules = append(base.rules, rootRule(s, f))
		} else if want.KeepChain {
			t.sets = append(t.sets, got.setsOf(f)...)
			base.rules = append(base.rules, got.rootsOf(f)...)
		}
	}
	t.chains = []chain{base, {Chain: nfnl.Chain{Table: tableName, Name: s.Chain}, rules: sharedRules(want, got)}}
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

func familySets(want ruleset.State, table ruleset.Table, got *reading) []set {
	f := table.Family
	keep := set{Set: setOf(keepSet(f), f)}
	if want.KeepChain && got.chainState(want.Settings, f) == backend.ChainFilled {
		keep.members = got.sets[keepSet(f)].members
	} else {
		keep.members = fold(f, table.Destinations)
	}
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
	if name == keepSet(f) {
		s.Interval, s.Comment = true, "destinations that see the pod's own address"
	}
	return s
}

// sharedRules leaves a chain alone that is filled for all families, whoever wrote what is in it.
func sharedRules(want ruleset.State, got *reading) []nfnl.Rule {
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
	return chainRules(want.Settings, on)
}
