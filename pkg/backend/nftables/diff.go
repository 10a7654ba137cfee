package nftables

import (
	"maps"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// Diff compares table, sets, chains and rules. It aims at the sets in use, whatever the way in which Apply changes them: that
// another set would be filled is no difference.
func (b *Backend) Diff(got backend.Observed, want ruleset.State) []backend.Drift {
	now, observed := got.Raw.(*reading)
	if !observed {
		now = &reading{}
	}
	t := aim(want, now, asItIs, b.limit)
	var d backend.Drifts
	switch {
	case !now.table:
		d.Add(backend.ObjectTable, backend.ProblemMissing, "inet "+tableName)
	case broken(t, now):
		d.Add(backend.ObjectTable, backend.ProblemDifferent, "inet "+tableName+" is switched off, or has a chain or set of another kind under a name of ip-masq")
		now = &reading{}
	}
	diffSets(&d, t, now)
	diffChains(&d, t, now)
	diffStale(&d, t, now)
	return d
}

// diffSets names the members of sets one by one.
func diffSets(d *backend.Drifts, t target, got *reading) {
	for _, want := range t.sets {
		object := backend.ObjectPolicyRule
		if holdsPods(want.Name) {
			object = backend.ObjectPod
		}
		now, there := got.sets[want.Name]
		switch {
		case !there && got.table:
			d.Add(object, backend.ProblemMissing, "the set "+want.Name)
		case there && !sameCount(now.Set, want.Set):
			d.Add(object, backend.ProblemDifferent, "the set "+want.Name+", whose ranges "+map[bool]string{true: "are not counted", false: "are counted"}[want.Counted])
			continue
		}
		missing, surplus := difference(want.members, got.sets[want.Name].members)
		for _, m := range missing {
			d.Add(object, backend.ProblemMissing, "%s in set %s", m.text(false), want.Name)
		}
		for _, m := range surplus {
			d.Add(object, backend.ProblemUnexpected, "%s in set %s", m.text(false), want.Name)
		}
	}
}

func diffChains(d *backend.Drifts, t target, got *reading) {
	for _, want := range t.chains {
		if _, there := got.chains[want.Name]; !there {
			d.Add(backend.ObjectChain, backend.ProblemMissing, want.Name)
		}
		object := backend.ObjectPolicyRule
		if want.Name == baseChain {
			object = backend.ObjectRootRule
		}
		diffRules(d, object, want, got.rules[want.Name])
	}
}

// diffRules goes through the rules as planRules does.
func diffRules(d *backend.Drifts, object backend.Object, want chain, got []nfnl.Rule) {
	unexpected := func(rules []nfnl.Rule) {
		for _, r := range rules {
			d.Add(object, backend.ProblemUnexpected, "%s: %s", want.Name, textOf(r, want.rules))
		}
	}
	for _, r := range want.rules {
		i := slices.IndexFunc(got, func(now nfnl.Rule) bool { return sameRule(r, now) })
		if i < 0 {
			d.Add(object, backend.ProblemMissing, "%s: %s", want.Name, r.Text)
			continue
		}
		unexpected(got[:i])
		got = got[i+1:]
	}
	unexpected(got)
}

// textOf describes a rule that should not be there: one of ip-masq's in the wrong place, or other software's.
func textOf(r nfnl.Rule, known []nfnl.Rule) string {
	for _, k := range known {
		if sameRule(k, r) {
			return k.Text + " (out of place)"
		}
	}
	return expressions(r)
}

// diffStale names what is not wanted, whoever put it into the table.
func diffStale(d *backend.Drifts, t target, got *reading) {
	wanted := map[string]bool{}
	for _, want := range t.chains {
		wanted[want.Name] = true
	}
	for _, want := range t.sets {
		wanted[want.Name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(got.chains)) {
		if !wanted[name] {
			d.Add(backend.ObjectChain, backend.ProblemUnexpected, name)
		}
	}
	for _, name := range append(slices.Sorted(maps.Keys(got.sets)), got.others...) {
		if !wanted[name] {
			d.Add(backend.ObjectTable, backend.ProblemDifferent, "it has the set or map "+name)
		}
	}
}
