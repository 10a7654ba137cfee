package nftables

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// reading is what our table holds. It is the Raw form of an observation.
type reading struct {
	generation uint32 // 0 where the ruleset changed during the reading

	table  bool
	flags  uint32                 // of the table
	chains map[string]nfnl.Chain  // all of the table's, other software's too
	rules  map[string][]nfnl.Rule // by chain
	sets   map[string]set         // those with our names, with what they hold
	others []string               // the names of other software's sets and maps
}

// Observe reads our table. It is one table whatever the families, so all of it is read.
func (b *Backend) Observe(ctx context.Context, s policy.Settings, families ...policy.Family) (backend.Observed, error) {
	var observed backend.Observed
	err := session(ctx, func(c *nfnl.Conn) error {
		got, err := read(ctx, c)
		if err != nil {
			return err
		}
		observed.Raw = got
		for _, f := range families {
			observed.Tables = append(observed.Tables, got.summary(s, f))
		}
		return nil
	})
	return observed, err
}

// readAttempts is how often other software may write while we read.
const readAttempts = 8

// read takes several requests, and other transactions may come between them: then it starts over. Where that does not end it
// settles for what it has: a transaction that is planned from a wrong reading is refused as a whole. Long sets of intervals are
// not read again as long as nobody changed them.
func read(ctx context.Context, c *nfnl.Conn) (*reading, error) {
	for attempt := 1; ; attempt++ {
		before, err := c.Settled()
		if err != nil {
			return nil, err
		}
		if got := remembered.recall(c, before); got != nil {
			return got, nil
		}
		got := &reading{chains: map[string]nfnl.Chain{}, sets: map[string]set{}}
		if err := errors.Join(got.read(c, remembered.unchanged(c)), ctx.Err()); err != nil {
			return nil, err
		}
		after, err := c.Generation()
		if err != nil {
			return nil, err
		}
		if before == after {
			got.generation = after
			remembered.keep(c, after, got)
			return got, nil
		}
		if attempt == readAttempts {
			return got, nil
		}
	}
}

func (r *reading) read(c *nfnl.Conn, unchanged map[string]set) (err error) {
	if r.flags, r.table, err = c.Table(tableName); err != nil || !r.table {
		return err
	}
	chains, err := c.Chains(tableName)
	if uninterrupted(err) != nil {
		return err
	}
	for _, chain := range chains {
		r.chains[chain.Name] = chain
	}
	rules, err := c.Rules(tableName)
	if uninterrupted(err) != nil {
		return err
	}
	r.rules = byChain(rules)
	return r.readSets(c, unchanged)
}

// uninterrupted overlooks that a dump was interrupted, which the generation tells as well.
func uninterrupted(err error) error {
	if errors.Is(err, nfnl.ErrInterrupted) {
		return nil
	}
	return err
}

// ownRules reads the rules alone.
func ownRules(ctx context.Context, c *nfnl.Conn) (rules map[string][]nfnl.Rule, err error) {
	err = again(ctx, func() error {
		all, err := c.Rules(tableName)
		rules = byChain(all)
		return err
	})
	return rules, err
}

// policyRules reads the rules of the base chain and of the shared chain alone, however many groups there are.
func policyRules(ctx context.Context, c *nfnl.Conn, s policy.Settings) (rules map[string][]nfnl.Rule, err error) {
	err = again(ctx, func() error {
		rules = map[string][]nfnl.Rule{}
		for _, chain := range []string{baseChain, s.Chain} {
			all, err := c.ChainRules(tableName, chain)
			if err != nil {
				return err
			}
			rules[chain] = all
		}
		return nil
	})
	return rules, err
}

func byChain(rules []nfnl.Rule) map[string][]nfnl.Rule {
	out := map[string][]nfnl.Rule{}
	for _, r := range rules {
		out[r.Chain] = append(out[r.Chain], r)
	}
	return out
}

func (r *reading) readSets(c *nfnl.Conn, unchanged map[string]set) error {
	sets, err := c.Sets(tableName)
	if uninterrupted(err) != nil {
		return err
	}
	for _, s := range sets {
		if f, ours := ownSet(s.Name); !ours || s.Map && !setOf(s.Name, f).Map {
			if !s.Anonymous {
				r.others = append(r.others, s.Name)
			}
			continue
		}
		if known, ok := unchanged[s.Name]; ok {
			r.sets[s.Name] = known
			continue
		}
		elements, err := c.Elements(tableName, s.Name)
		if uninterrupted(err) != nil {
			return err
		}
		r.sets[s.Name] = set{Set: s, members: membersOf(s, elements)}
	}
	return nil
}

// inUse names that one of several sets of destinations that the shared chain looks into; where it looks into none, one that is there.
func (r *reading) inUse(s policy.Settings, f policy.Family, names []string) (name string, inUse bool) {
	for _, name := range names {
		if hasRule(r.rules[s.Chain], lookUpRule(s, f, name)) {
			return name, true
		}
	}
	for _, name := range names {
		if _, there := r.sets[name]; there {
			return name, false
		}
	}
	return names[0], false
}

// looksUpSources reports whether the shared chain translates what comes from pods that chose an address.
func (r *reading) looksUpSources(s policy.Settings, f policy.Family) bool {
	return looksUpSources(r.rules[s.Chain], f)
}

func looksUpSources(rules []nfnl.Rule, f policy.Family) bool {
	return slices.ContainsFunc(rules, func(r nfnl.Rule) bool { return nfnl.UsesSet(r, sourcesMap(f)) })
}

func (r *reading) summary(s policy.Settings, f policy.Family) backend.ObservedTable {
	table := backend.ObservedTable{Family: f, Chain: r.chainState(s, f), Pods: r.pods(f)}
	for i, root := range rootRules(s, f) {
		copies := 0
		for _, rule := range r.rules[baseChain] {
			if sameRule(root, rule) {
				copies++
			}
		}
		switch {
		case i == 0:
			table.Root = copies
		case copies == 0 || table.Root == 0:
			table.Root = 0
		default:
			table.Root = max(table.Root, copies)
		}
	}
	return table
}

func (r *reading) chainState(s policy.Settings, f policy.Family) backend.ChainState {
	_, there := r.chains[s.Chain]
	return chainState(s, f, there, r.rules[s.Chain])
}

// chainState says whether the shared chain works for a family: its destinations are looked up, and the rest is masqueraded
// in some way.
func chainState(s policy.Settings, f policy.Family, there bool, rules []nfnl.Rule) backend.ChainState {
	switch {
	case !there:
		return backend.ChainMissing
	case !slices.ContainsFunc(destinationSets(f), func(name string) bool { return hasRule(rules, lookUpRule(s, f, name)) }),
		!slices.ContainsFunc(rules, masquerades):
		return backend.ChainEmpty
	}
	return backend.ChainFilled
}

func masquerades(r nfnl.Rule) bool {
	return slices.ContainsFunc(r.Exprs, func(e []byte) bool { return nfnl.ExprName(e) == "masq" })
}

func (r *reading) pods(f policy.Family) []ruleset.Pod {
	var pods []ruleset.Pod
	chosen := map[netip.Addr]string{}
	for _, m := range r.sets[sourcesMap(f)].members {
		chosen[m.first] = m.value
	}
	for _, m := range r.sets[podsSet(f)].members {
		if pod, ok := podOf(m); ok {
			pod.Translated, _ = netip.ParseAddr(chosen[pod.Address])
			pods = append(pods, pod)
		}
	}
	return pods
}

// has reports whether anything of a family is there.
func (r *reading) has(f policy.Family) bool {
	return len(r.setsOf(f, anySet)) > 0 || len(r.rootsOf(f)) > 0
}

func anySet(string) bool { return true }

// holdsPods reports whether a set is about pods, and not about the policy.
func holdsPods(name string) bool {
	f, ours := ownSet(name)
	return ours && (name == podsSet(f) || name == optedOutSet(f) || name == sourcesMap(f))
}

// setsOf are the sets of a family, as the target has them in order.
func (r *reading) setsOf(f policy.Family, which func(name string) bool) []set {
	var sets []set
	for _, name := range slices.Sorted(maps.Keys(r.sets)) {
		if of, ours := ownSet(name); ours && of == f && which(name) {
			sets = append(sets, r.sets[name])
		}
	}
	return sets
}

func (r *reading) rootsOf(f policy.Family) []nfnl.Rule {
	var roots []nfnl.Rule
	for _, rule := range r.rules[baseChain] {
		if of, ok := familyOf(rule); ok && of == f {
			roots = append(roots, rule)
		}
	}
	return roots
}

// chainsOf are the chains that maps of a family lead to.
func (r *reading) chainsOf(f policy.Family) []chain {
	var chains []chain
	for _, name := range slices.Sorted(maps.Keys(r.chains)) {
		if of, ours := chainFamily(name); ours && of == f {
			chains = append(chains, chain{r.chains[name], r.rules[name]})
		}
	}
	return chains
}
