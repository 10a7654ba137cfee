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
	if there {
		sc.declare(s.Chain)
	} else {
		sc.create(s.Chain)
	}
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

// planRoot leaves exactly one root rule of the wanted form, where packets reach it.
func planRoot(sc *script, s policy.Settings, got chains) {
	wanted := rootRule(s)
	ours, place := 0, 0 // our rules so far, and where the first rule that hides those behind it will be once ours are out
	right, hidden := false, false
	for i, r := range got[postrouting] {
		switch {
		case slices.Equal(r, wanted) || isRoot(s, r):
			ours++
			right = slices.Equal(r, wanted) && !hidden
		case !hidden && endsTraversal(r):
			hidden, place = true, i-ours
		}
	}
	if ours == 1 && right {
		return
	}
	for _, r := range got[postrouting] {
		if slices.Equal(r, wanted) || isRoot(s, r) {
			sc.delete(postrouting, r)
		}
	}
	if hidden {
		sc.insert(postrouting, place, wanted)
		return
	}
	sc.append(postrouting, wanted)
}

// endsTraversal recognises a rule that no packet gets past: a verdict without any match. Behind one, ours would never be asked.
// A rule with a match is somebody's exception and stays ahead of ours if it was.
func endsTraversal(r rule) bool {
	matches := len(r)
	if r.value("--comment") != "" {
		matches -= len(rule{"-m", "comment", "--comment", ""})
	}
	verdict := slices.Index(r, "-j")
	return verdict >= 0 && matches-len(r[verdict:]) == 0 &&
		slices.Contains([]string{"ACCEPT", "DROP", "RETURN", "MASQUERADE", "SNAT", "NETMAP"}, r[verdict+1])
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
