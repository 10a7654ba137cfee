package iptables

import (
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// plan is what turns a reading into what is wanted: one transaction of iptables-restore; in nf_tables then the root rules that
// are too many, which go by their handles, because iptables cannot delete behind a native rule that it does not know; and then
// the chain to which those led.
type plan struct {
	*script
	surplus []root
	after   *script
}

// plans computes the difference. It is pure, and empty where both are equal, so that rules that are right keep their counters.
func plans(kind backend.Kind, want ruleset.State, table ruleset.Table, got reading) plan {
	s := want.Settings
	p := plan{script: newScript(), after: newScript()}
	planChain(p.script, s, want.KeepChain, table, got.chains)
	planPods(p.script, s, table, got.chains)
	last := p.script
	if kind == backend.IPTablesNFT {
		p.surplus = planRootNFT(p.script, s, got.roots)
		last = p.after
	} else {
		planRoot(p.script, s, got.roots)
	}
	if _, there := got.chains[s.PodsChain()]; there && s.Sources == policy.SourcesAll {
		last.drop(s.PodsChain())
	}
	return p
}

func (p plan) empty() bool { return p.script.empty() && len(p.surplus) == 0 && p.after.empty() }

// describe lists the changes in the words of iptables-restore.
func (p plan) describe() []string {
	lines := slices.Clone(p.lines)
	for _, r := range p.surplus {
		lines = append(lines, "-D "+postrouting+" "+r.rule.String())
	}
	return append(lines, p.after.lines...)
}

// planChain replaces the shared chain as a whole: the order of its rules is its meaning.
func planChain(sc *script, s policy.Settings, keep bool, want ruleset.Table, got chains) {
	now, there := got[s.Chain]
	if keep && len(now) > 0 && !isUnreadable(now) {
		return
	}
	rules := chainRules(s, want)
	if there && slices.EqualFunc(now, rules, slices.Equal) {
		return
	}
	planWhole(sc, s.Chain, there, rules)
}

// planWhole writes a chain from its start. One that was not there when it was read must not be there: that fails rather than
// overwrites.
func planWhole(sc *script, chain string, there bool, rules []rule) {
	if there {
		sc.declare(chain)
	} else {
		sc.create(chain)
	}
	sc.appendAll(chain, rules)
}

// planPods changes single rules: their order means nothing, because all lead to the same chain. Where the chain has any that is
// no pod's, it is written anew: what iptables prints of a native rule may be less than the rule says, and cannot be deleted by it.
func planPods(sc *script, s policy.Settings, want ruleset.Table, got chains) {
	if s.Sources == policy.SourcesAll {
		return
	}
	now, there := got[s.PodsChain()]
	rules := podRules(s, want)
	if !there || slices.ContainsFunc(now, func(r rule) bool { _, ok := podOf(r); return !ok }) {
		planWhole(sc, s.PodsChain(), there, rules)
		return
	}
	missing, surplus := difference(rules, now)
	for _, r := range surplus {
		sc.delete(s.PodsChain(), r)
	}
	sc.appendAll(s.PodsChain(), missing)
}

// planRoot leaves exactly one root rule of the wanted form, where packets reach it.
func planRoot(sc *script, s policy.Settings, roots []root) {
	ours, right := 0, false
	place := -1 // of the first rule that hides those behind it, once ours are out
	for i, r := range roots {
		switch {
		case r.rule != nil:
			ours++
			right = slices.Equal(r.rule, rootRule(s)) && place < 0
		case place < 0 && r.final:
			place = i - ours
		}
	}
	if ours == 1 && right {
		return
	}
	for _, r := range roots {
		if r.rule != nil {
			sc.delete(postrouting, r.rule)
		}
	}
	addRoot(sc, place, rootRule(s))
}

// planRootNFT adds the root rule where none is right, and returns those that must go.
func planRootNFT(sc *script, s policy.Settings, roots []root) (surplus []root) {
	place := slices.IndexFunc(roots, func(r root) bool { return r.rule == nil && r.final })
	right := slices.IndexFunc(roots, func(r root) bool { return slices.Equal(r.rule, rootRule(s)) })
	if right < 0 || (place >= 0 && place < right) {
		addRoot(sc, place, rootRule(s))
		right = -1
	}
	for i, r := range roots {
		if r.rule != nil && i != right {
			surplus = append(surplus, r)
		}
	}
	return surplus
}

// addRoot puts the rule ahead of the one at place, or last where that is negative.
func addRoot(sc *script, place int, r rule) {
	if place < 0 {
		sc.append(postrouting, r)
		return
	}
	sc.insert(postrouting, place, r)
}

// finalTargets end the way of a packet through the chain.
var finalTargets = []string{"ACCEPT", "DROP", "RETURN", "MASQUERADE", "SNAT", "NETMAP"}

// endsTraversal recognises a rule that no packet gets past: a verdict without any match. Behind one, ours would never be asked.
// A rule with a match is an exception that somebody made, and stays ahead of ours if it was.
func endsTraversal(r rule) bool {
	matches := len(r)
	if r.value("--comment") != "" {
		matches -= len(rule{"-m", "comment", "--comment", ""})
	}
	verdict := slices.Index(r, "-j")
	return verdict >= 0 && matches-len(r[verdict:]) == 0 && slices.Contains(finalTargets, r[verdict+1])
}

// difference compares two lists of rules without regard to order: what only want has, and what only got has.
func difference(want, got []rule) (missing, surplus []rule) {
	left := make(map[string]int, len(got))
	for _, r := range got {
		left[r.String()]++
	}
	for _, r := range want {
		if key := r.String(); left[key] > 0 {
			left[key]--
			continue
		}
		missing = append(missing, r)
	}
	for _, r := range got {
		if key := r.String(); left[key] > 0 {
			left[key]--
			surplus = append(surplus, r)
		}
	}
	return missing, surplus
}
