package nftables

import (
	"maps"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// plan is the way from what is there to the target, in at most two transactions. Between them, and after either, every
// destination has its old or its new verdict.
type plan struct {
	fill *nfnl.Batch // sets and what they hold
	use  *nfnl.Batch // chains and rules; then the sets that no rule uses any more
}

// plans computes the difference. It is pure, and both transactions are empty where nothing is to be changed.
//
// Interval sets are filled one transaction before a rule uses them: since the lookup array of Linux 6.18 is published after
// the new rules, a set that is used at once matches nothing at first. Sets in use are changed in place, range by range.
// Kernels before that array may miss an address beside a changed range for the moment of the commit; there is no way around
// that but a copy of the whole set for every change.
func plans(t target, got *reading) plan {
	p := plan{nfnl.NewBatch(), nfnl.NewBatch()}
	got = planTable(p.fill, t, got)
	planSets(p.fill, t, got)
	planMembers(p.fill, t, got)
	planChains(p.use, t, got)
	planStale(p.use, t, got)
	return p
}

// planTable creates the table, in place of one that cannot be mended, and returns the reading that holds from then on.
func planTable(b *nfnl.Batch, t target, got *reading) *reading {
	if got.table && broken(t, got) {
		b.DeleteTable(tableName)
		got = &reading{}
	}
	if !got.table {
		b.AddTable(tableName, 0, nfnl.Excl)
	}
	return got
}

// broken reports what cannot be changed in place: a switched-off table, a set of another type, a base chain that hangs
// elsewhere. Somebody must have replaced ours.
func broken(t target, got *reading) bool {
	for _, want := range t.sets {
		now, there := got.sets[want.Name]
		if there && (now.Key != want.Key || now.Interval != want.Interval) {
			return true
		}
	}
	for _, want := range t.chains {
		if now, there := got.chains[want.Name]; there && now != want.Chain {
			return true
		}
	}
	return got.flags != 0
}

func planSets(b *nfnl.Batch, t target, got *reading) {
	for _, want := range t.sets {
		if _, there := got.sets[want.Name]; !there {
			b.AddSet(want.Set)
		}
	}
}

func planMembers(b *nfnl.Batch, t target, got *reading) {
	for _, want := range t.sets {
		missing, surplus := difference(want.members, got.sets[want.Name].members)
		b.DeleteElements(tableName, want.Name, elements(want.Set, surplus))
		b.AddElements(tableName, want.Name, elements(want.Set, missing), nfnl.Excl)
	}
}

// planChains creates all chains before any rule, because rules lead from one to another.
func planChains(b *nfnl.Batch, t target, got *reading) {
	for _, want := range t.chains {
		if _, there := got.chains[want.Name]; !there {
			b.AddChain(want.Chain)
		}
	}
	for _, want := range t.chains {
		planRules(b, want.rules, got.rules[want.Name])
	}
}

// planRules leaves rules that are right where they are, so that their counters survive.
func planRules(b *nfnl.Batch, want, got []nfnl.Rule) {
	var surplus []nfnl.Rule
	for _, r := range want {
		i := slices.IndexFunc(got, func(now nfnl.Rule) bool { return sameRule(r, now) })
		switch {
		case i >= 0:
			surplus = append(surplus, got[:i]...)
			got = got[i+1:]
		case len(got) > 0:
			b.AddRule(r, got[0].Handle)
		default:
			b.AddRule(r, 0)
		}
	}
	for _, r := range append(surplus, got...) {
		b.DeleteRule(r)
	}
}

// planStale removes the chains of a former configuration, and then the sets that are left without a rule.
func planStale(b *nfnl.Batch, t target, got *reading) {
	wanted := map[string]bool{}
	for _, want := range t.chains {
		wanted[want.Name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(got.rules)) {
		if !wanted[name] {
			planRules(b, nil, got.rules[name])
			b.DeleteChain(tableName, name)
		}
	}
	for _, want := range t.sets {
		wanted[want.Name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(got.sets)) {
		if !wanted[name] {
			b.DeleteSet(tableName, name)
		}
	}
}

// planRemove takes out a family, or the whole table where nothing of the other is left.
func planRemove(s policy.Settings, family policy.Family, got *reading) *nfnl.Batch {
	b := nfnl.NewBatch()
	switch {
	case !got.table:
	case got.leadsElsewhere(s):
		if _, there := got.chains[s.Chain]; there {
			planRules(b, nil, got.rules[s.Chain])
			b.DeleteChain(tableName, s.Chain)
		}
	case slices.ContainsFunc(families, func(f policy.Family) bool { return f != family && got.has(f) }):
		planRemoveFamily(b, family, got)
	default:
		b.DeleteTable(tableName)
	}
	return b
}

// leadsElsewhere reports whether the base chain leads to a shared chain of another name.
func (r *reading) leadsElsewhere(s policy.Settings) bool {
	return slices.ContainsFunc(r.rules[baseChain], func(rule nfnl.Rule) bool {
		to := nfnl.Target(rule)
		return to != "" && to != s.Chain
	})
}

// planRemoveFamily leaves the rules of both families.
func planRemoveFamily(b *nfnl.Batch, family policy.Family, got *reading) {
	for _, name := range slices.Sorted(maps.Keys(got.rules)) {
		for _, r := range got.rules[name] {
			if f, ok := familyOf(r); ok && f == family {
				b.DeleteRule(r)
			}
		}
	}
	for _, s := range got.setsOf(family) {
		b.DeleteSet(tableName, s.Name)
	}
}
