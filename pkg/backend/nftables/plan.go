package nftables

import (
	"maps"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// plan is the way from what is there to the target, in at most three transactions. Between them, and after each, every
// destination has its old or its new verdict.
type plan struct {
	fill  *nfnl.Batch // sets and what they hold, with the chains that maps lead to
	use   *nfnl.Batch // chains and rules; then the sets that no rule uses any more
	clean *nfnl.Batch // maps that no rule uses any more, and the chains that they led to

	filled *reading // what holds after fill
}

// plans computes the difference. It is pure, and all transactions are empty where nothing is to be changed.
//
// Interval sets are filled one transaction before a rule uses them: where packets look them up in an array, it is published
// after the new rules, and a set that is used at once matches nothing at first. Whether a set in use is changed in place, range
// by range, or another one filled and the rule moved to it, is the target's decision (changes).
//
// Maps go a transaction after the rule that used them, when no packet is under way any more that met it: deleting one makes its ranges
// invisible at once (nft_map_deactivate), and such a packet would find nothing.
func plans(t target, got *reading) plan {
	p := plan{fill: nfnl.NewBatch(), clean: nfnl.NewBatch()}
	got = planTable(p.fill, t, got)
	got = planSets(p.fill, t, got)
	got = planLed(p.fill, t, got)
	planMembers(p.fill, t, got)
	p.filled = got
	p.use = planUse(t, got)
	planStale(p.clean, t, got, true)
	return p
}

func planUse(t target, got *reading) *nfnl.Batch {
	b := nfnl.NewBatch()
	planChains(b, t, got)
	planStale(b, t, got, false)
	return b
}

// planLed creates the chains that a map is to lead to and that are not there, with their rules, and returns the reading that holds
// from then on.
func planLed(b *nfnl.Batch, t target, got *reading) *reading {
	with := *got
	with.chains, with.rules = map[string]nfnl.Chain{}, map[string][]nfnl.Rule{}
	maps.Copy(with.chains, got.chains)
	maps.Copy(with.rules, got.rules)
	for _, want := range t.chains {
		if _, there := got.chains[want.Name]; !there && isLed(want.Name) {
			b.AddChain(want.Chain)
			planRules(b, want.rules, nil)
			with.chains[want.Name], with.rules[want.Name] = want.Chain, want.rules
		}
	}
	return &with
}

// isLed reports whether a chain is one that maps lead to.
func isLed(name string) bool {
	_, led := chainFamily(name)
	return led
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
// elsewhere. Other software must have replaced ours.
func broken(t target, got *reading) bool {
	for _, want := range t.sets {
		now, there := got.sets[want.Name]
		if there && !sameKind(now.Set, want.Set) || slices.Contains(got.others, want.Name) {
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

// planSets creates sets, and returns the reading that holds from then on. A set in which ranges are counted, or not, against the target is
// created anew: it is not the one in use, of which aim knows better, so only other software's rules can hold it.
func planSets(b *nfnl.Batch, t target, got *reading) *reading {
	for _, want := range t.sets {
		now, there := got.sets[want.Name]
		if there && !sameCount(now.Set, want.Set) {
			got, there = planWithout(b, want.Name, got), false
		}
		if !there {
			b.AddSet(want.Set)
		}
	}
	return got
}

// planWithout deletes a set with the rules that use it, and returns the reading that holds from then on.
func planWithout(b *nfnl.Batch, name string, got *reading) *reading {
	with := *got
	with.sets, with.rules = map[string]set{}, map[string][]nfnl.Rule{}
	for chain, rules := range got.rules {
		for _, r := range rules {
			if nfnl.UsesSet(r, name) {
				b.DeleteRule(r)
			} else {
				with.rules[chain] = append(with.rules[chain], r)
			}
		}
	}
	b.DeleteSet(tableName, name)
	for other := range got.sets {
		if other != name {
			with.sets[other] = got.sets[other]
		}
	}
	return &with
}

func planMembers(b *nfnl.Batch, t target, got *reading) {
	for _, want := range t.sets {
		missing, surplus := difference(want.members, got.sets[want.Name].members)
		b.DeleteElements(tableName, want.Name, elements(want.Set, surplus, nil))
		b.AddElements(tableName, want.Name, elements(want.Set, missing, want.begin), nfnl.Excl)
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
	former := got
	var surplus []nfnl.Rule
	for _, r := range want {
		i := slices.IndexFunc(got, func(now nfnl.Rule) bool { return sameRule(r, now) })
		switch {
		case i >= 0:
			surplus = append(surplus, got[:i]...)
			got = got[i+1:]
		case len(got) > 0:
			b.AddRule(countOn(r, want, former), got[0].Handle)
		default:
			b.AddRule(countOn(r, want, former), 0)
		}
	}
	for _, r := range append(surplus, got...) {
		b.DeleteRule(r)
	}
}

// planStale removes what is not wanted, whoever put it into our table: first all rules, which may lead from one chain to another,
// then sets and maps, whose values may do so too, and then the chains. Our own maps, and the chains that they lead to, are
// removed later than the rest.
func planStale(b *nfnl.Batch, t target, got *reading, later bool) {
	wanted := map[string]bool{}
	for _, want := range t.chains {
		wanted[want.Name] = true
	}
	var stale []string
	for _, name := range slices.Sorted(maps.Keys(got.chains)) {
		if !wanted[name] && isLed(name) == later {
			stale = append(stale, name)
		}
	}
	for _, name := range stale {
		planRules(b, nil, got.rules[name])
	}
	for _, want := range t.sets {
		wanted[want.Name] = true
	}
	for _, name := range append(slices.Sorted(maps.Keys(got.sets)), got.others...) {
		isMap := got.sets[name].Map
		if wanted[name] || isMap != later {
			continue
		}
		if isMap {
			b.FlushSet(tableName, name)
		}
		b.DeleteSet(tableName, name)
	}
	for _, name := range stale {
		b.DeleteChain(tableName, name)
	}
}

// planRemove takes out a family, or the whole table where nothing of the other is left.
func planRemove(s policy.Settings, family policy.Family, got *reading) *nfnl.Batch {
	b := nfnl.NewBatch()
	switch {
	case !got.table:
	case got.leadsElsewhere(s):
		if _, there := got.chains[s.Chain]; there {
			got.deleteRules(b, func(r nfnl.Rule) bool { return r.Chain == s.Chain || nfnl.Target(r) == s.Chain })
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

// planRemoveFamily leaves the rules of both families, but for those that look into a set that goes, and those that tell the counts
// of the families apart.
func planRemoveFamily(b *nfnl.Batch, family policy.Family, got *reading) {
	sets := got.setsOf(family, anySet)
	got.deleteRules(b, func(r nfnl.Rule) bool {
		f, ok := familyOf(r)
		led, isLed := chainFamily(r.Chain)
		return ok && (f == family && !isLed || r.Comment == countComment) || isLed && led == family ||
			slices.ContainsFunc(sets, func(s set) bool { return nfnl.UsesSet(r, s.Name) })
	})
	for _, s := range sets {
		if s.Map {
			b.FlushSet(tableName, s.Name)
		}
		b.DeleteSet(tableName, s.Name)
	}
	for _, c := range got.chainsOf(family) {
		b.DeleteChain(tableName, c.Name)
	}
}

func (r *reading) deleteRules(b *nfnl.Batch, which func(nfnl.Rule) bool) {
	for _, chain := range slices.Sorted(maps.Keys(r.rules)) {
		for _, rule := range r.rules[chain] {
			if which(rule) {
				b.DeleteRule(rule)
			}
		}
	}
}
