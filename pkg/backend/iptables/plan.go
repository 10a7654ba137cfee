package iptables

import (
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// plan computes the transaction that turns what was read into what is wanted. It is pure, and empty where both are equal, so
// that rules that are right keep their counters.
func plan(s policy.Settings, keepChain bool, want ruleset.Table, got chains) *script {
	sc := newScript()
	planChain(sc, s, keepChain, want, got)
	planPods(sc, s, want, got)
	planRoot(sc, s, got)
	if _, there := got[s.PodsChain()]; there && s.Sources == policy.SourcesAll {
		sc.drop(s.PodsChain())
	}
	return sc
}

// planChain replaces the shared chain as a whole: the order of its rules is its meaning.
func planChain(sc *script, s policy.Settings, keep bool, want ruleset.Table, got chains) {
	rules := chainRules(s, want)
	now, there := got[s.Chain]
	if (keep && len(now) > 0) || (there && slices.EqualFunc(now, rules, slices.Equal)) {
		return
	}
	sc.declare(s.Chain)
	sc.appendAll(s.Chain, rules)
}

// planPods changes single rules: their order means nothing, because all lead to the same chain.
func planPods(sc *script, s policy.Settings, want ruleset.Table, got chains) {
	if s.Sources == policy.SourcesAll {
		return
	}
	now, there := got[s.PodsChain()]
	if !there {
		sc.create(s.PodsChain())
	}
	missing, surplus := difference(podRules(s, want), now)
	for _, r := range surplus {
		sc.delete(s.PodsChain(), r)
	}
	sc.appendAll(s.PodsChain(), missing)
}

// planRoot leaves exactly one root rule of the wanted form, keeping the first that is right.
func planRoot(sc *script, s policy.Settings, got chains) {
	wanted := rootRule(s)
	copies := 0
	for _, r := range got[postrouting] {
		switch {
		case slices.Equal(r, wanted):
			copies++
		case isRoot(s, r):
			sc.delete(postrouting, r)
		}
	}
	for ; copies > 1; copies-- {
		sc.delete(postrouting, wanted)
	}
	if copies == 0 {
		sc.append(postrouting, wanted)
	}
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
