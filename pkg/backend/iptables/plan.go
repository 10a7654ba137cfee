package iptables

import (
	"maps"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// plan is what turns a reading into what is wanted: one transaction of iptables-restore; in nf_tables then the root rules that
// are too many, which go by their handles, because iptables cannot delete behind a native rule that it does not know; and then
// the chains that nothing of ours leads to any more, in a transaction of their own: if other software's rule leads to one, the
// policy is in force all the same.
type plan struct {
	*script
	surplus []root
	after   *script

	stands  []string // the chains managed by ip-masq that are there after the transaction
	dropped []string // those of them that then go
	drops   bool     // a rule is written that drops
}

// plans computes the difference. It is pure, and empty where both are equal, so that rules that are right keep their counters.
// Without canDrop what should drop is written as discards has it; where that stands already, it counts as right.
func plans(kind backend.Kind, want ruleset.State, table ruleset.Table, got reading, canDrop bool) plan {
	s := want.Settings
	p := plan{script: newScript(), after: newScript()}
	now := func(chain string) (rules []rule, there bool) {
		p.stands = append(p.stands, chain)
		rules, there = got.chains[chain]
		return rules, there
	}
	if hasSources(s, table) {
		rules, there := now(sourcesChain(s))
		planSources(p.script, s, table, rules, there)
	}
	kept := want.KeepChain && len(got.chains[s.Chain]) > 0 && !isUnreadable(got.chains[s.Chain])
	if !kept {
		for _, c := range policyChains(want, table) {
			rules, there := now(c.name)
			p.chain(c, rules, there, table.Family, canDrop)
		}
	}
	if s.Sources == policy.SourcesPods {
		if hasNode(s) {
			rules, there := now(nodeChain(s))
			planNode(p.script, s, table, rules, there)
		}
		rules, there := now(s.PodsChain())
		planPods(p.script, s, table, rules, there)
	}
	if kind == backend.IPTablesNFT {
		p.surplus = planRootNFT(p.script, s, got.roots)
	} else {
		planRoot(p.script, s, got.roots)
	}
	p.drop(s, got.chains, kept)
	return p
}

// chain replaces a chain of the policy as a whole: the order of its rules is its meaning.
func (p *plan) chain(want list, now []rule, there bool, family policy.Family, canDrop bool) {
	discarded := discards(family, want.rules)
	if there && (equalRules(now, want.rules) || equalRules(now, discarded)) {
		return
	}
	p.drops = p.drops || slices.ContainsFunc(want.rules, isDrop)
	if !canDrop {
		want.rules = discarded
	}
	planWhole(p.script, want.name, there, want.rules)
}

// drop takes out the chains that are there and not wanted. Where the shared chain is kept as it is, so are those that it leads to.
func (p *plan) drop(s policy.Settings, got chains, kept bool) {
	for _, chain := range slices.Sorted(maps.Keys(got)) {
		if !IsOwnChain(s, chain) || slices.Contains(p.stands, chain) {
			continue
		}
		p.stands = append(p.stands, chain)
		if !kept || chain == s.PodsChain() || chain == nodeChain(s) {
			p.dropped = append(p.dropped, chain)
		}
	}
	p.after.drop(p.dropped...)
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

// planPods changes single rules: their order means nothing, because all lead to the same chain, but for that of what is no pod's,
// which is the last. Where the chain has any other, it is written anew: what iptables prints of a native rule may be less than the
// rule says, and cannot be deleted by it.
func planPods(sc *script, s policy.Settings, table ruleset.Table, now []rule, there bool) {
	isNode := func(r rule) bool { return slices.Equal(r, toNode(s)) }
	if !there || slices.ContainsFunc(now, func(r rule) bool { _, ok := podOf(r); return !ok && !isNode(r) }) {
		planWhole(sc, s.PodsChain(), there, podsChainRules(s, table))
		return
	}
	pods := slices.DeleteFunc(slices.Clone(now), isNode)
	missing, surplus := difference(podRules(s, table), pods)
	for _, r := range surplus {
		sc.delete(s.PodsChain(), r)
	}
	if s.NodeTraffic && len(now) == len(pods)+1 && isNode(now[len(pods)]) {
		sc.addPods(s, missing)
		return
	}
	for range len(now) - len(pods) {
		sc.delete(s.PodsChain(), toNode(s))
	}
	sc.appendAll(s.PodsChain(), missing)
	if s.NodeTraffic {
		sc.append(s.PodsChain(), toNode(s))
	}
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
