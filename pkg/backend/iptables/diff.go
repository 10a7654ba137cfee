package iptables

import (
	"fmt"
	"maps"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// Diff compares chain by chain. It judges as plans does, and says it in words instead of the input of iptables-restore.
func (b *Backend) Diff(got backend.Observed, want ruleset.State) []backend.Drift {
	raw, _ := got.Raw.(readings)
	var all []backend.Drift
	for _, table := range want.Tables {
		d := differ{settings: want.Settings, table: table, got: raw[table.Family]}
		if plans(b.kind, want, table, d.got, true).empty() {
			continue // additions of other programs that Apply leaves alone
		}
		d.roots()
		keep := want.KeepChain && len(d.got.chains[d.settings.Chain]) > 0
		for _, c := range slices.Backward(policyChains(want, table)) {
			d.policy(c, keep)
		}
		d.pods()
		d.node()
		d.sources()
		d.unexpected(keep)
		all = append(all, d.drifts...)
	}
	return all
}

// differ collects what is different in one family.
type differ struct {
	settings policy.Settings
	table    ruleset.Table
	got      reading
	drifts   backend.Drifts
	looked   []string // the chains that should be there
}

// add names the family after the detail.
func (d *differ) add(object backend.Object, problem backend.Problem, detail string) {
	d.drifts.Add(object, problem, fmt.Sprintf("%s (%s)", detail, d.table.Family))
}

// roots wants exactly one root rule, where packets reach it.
func (d *differ) roots() {
	right, behind, final := 0, false, false
	for _, r := range d.got.roots {
		switch {
		case r.rule == nil:
			final = final || r.final
		case slices.Equal(r.rule, rootRule(d.settings)):
			if right++; right > 1 {
				d.add(backend.ObjectRootRule, backend.ProblemUnexpected, "a second copy in "+postrouting+": "+r.rule.String())
			}
			behind = behind || right == 1 && final
		default:
			d.add(backend.ObjectRootRule, backend.ProblemUnexpected, "another agent's in "+postrouting+": "+r.rule.String())
		}
	}
	switch {
	case right == 0:
		d.add(backend.ObjectRootRule, backend.ProblemMissing, "the jump from "+postrouting+" to "+rootRule(d.settings).target())
	case behind:
		d.add(backend.ObjectRootRule, backend.ProblemDifferent, "it stands in "+postrouting+" behind a rule that no packet gets past")
	}
}

// chain returns the rules of a chain that should be there, and whether they can be compared with anything.
func (d *differ) chain(name string) (now []rule, readable bool) {
	d.looked = append(d.looked, name)
	now, there := d.got.chains[name]
	if !there {
		d.add(backend.ObjectChain, backend.ProblemMissing, name)
	}
	if isUnreadable(now) {
		d.add(backend.ObjectChain, backend.ProblemDifferent, name+" has rules that iptables cannot print")
		return nil, false
	}
	return now, true
}

// policy compares a chain of the policy rule by rule; the order of rules is their meaning.
func (d *differ) policy(want list, keep bool) {
	if keep && !isUnreadable(d.got.chains[d.settings.Chain]) {
		return
	}
	now, readable := d.chain(want.name)
	if !readable || equalRules(now, want.rules) || equalRules(now, discards(d.table.Family, want.rules)) {
		return
	}
	_, there := d.got.chains[want.name]
	missing, surplus := difference(want.rules, now)
	d.rules(want.name, backend.ProblemMissing, missing)
	d.rules(want.name, backend.ProblemUnexpected, surplus)
	if len(missing)+len(surplus) == 0 && there {
		d.add(backend.ObjectChain, backend.ProblemDifferent, want.name+" has its rules in another order")
	}
}

func (d *differ) rules(chain string, problem backend.Problem, rules []rule) {
	for _, r := range rules {
		d.add(backend.ObjectPolicyRule, problem, chain+" "+withoutComment(r).String())
	}
}

// pods compares the pods' chain. What is no pod's rule does not belong there, but for the one that leads to the node's chain.
func (d *differ) pods() {
	if d.settings.Sources == policy.SourcesAll {
		return
	}
	name := d.settings.PodsChain()
	now, readable := d.chain(name)
	if !readable {
		return
	}
	want := podsChainRules(d.settings, d.table)
	missing, surplus := difference(want, now)
	d.podRules(name, backend.ProblemMissing, missing)
	d.podRules(name, backend.ProblemUnexpected, surplus)
	if last := len(now) - 1; d.settings.NodeTraffic && last >= 0 && slices.ContainsFunc(now[:last], func(r rule) bool { return slices.Equal(r, toNode(d.settings)) }) {
		d.add(backend.ObjectChain, backend.ProblemDifferent, name+" has rules behind the one for what is no pod's")
	}
}

// podRules names pods, each once, and what is no pod's by its rule.
func (d *differ) podRules(chain string, problem backend.Problem, rules []rule) {
	seen := map[ruleset.Pod]bool{}
	for _, r := range rules {
		pod, ok := podOf(r)
		switch {
		case ok && chain == sourcesChain(d.settings) && !seen[pod]:
			d.add(backend.ObjectPod, problem, fmt.Sprintf("the chosen source address of %s of %s", pod.Address, pod.Label))
		case ok && chain == d.settings.PodsChain():
			d.add(backend.ObjectPod, problem, fmt.Sprintf("%s of %s", pod.Address, pod.Label))
		case ok:
		case slices.Equal(r, toNode(d.settings)):
			d.rules(chain, problem, []rule{r})
		default:
			d.add(backend.ObjectChain, backend.ProblemDifferent, chain+" has a rule that is no pod's: "+r.String())
		}
		seen[pod] = true
	}
}

// sources compares the chain of pods that chose their source address.
func (d *differ) sources() {
	if !hasSources(d.settings, d.table) {
		return
	}
	name := sourcesChain(d.settings)
	now, readable := d.chain(name)
	sc := newScript()
	if planSources(sc, d.settings, d.table, now, true); !readable || sc.empty() {
		return
	}
	missing, surplus := difference(sourceRules(d.settings, d.table), now)
	d.podRules(name, backend.ProblemMissing, missing)
	d.podRules(name, backend.ProblemUnexpected, surplus)
	if len(missing)+len(surplus) == 0 {
		d.add(backend.ObjectChain, backend.ProblemDifferent, name+" has its rules in another order")
	}
}

// node compares the chain of what is no pod's.
func (d *differ) node() {
	if !hasNode(d.settings) {
		return
	}
	name := nodeChain(d.settings)
	now, readable := d.chain(name)
	if !readable {
		return
	}
	want := nodeRules(d.settings, d.table)
	missing, surplus := difference(want, now)
	d.optedOut(backend.ProblemMissing, missing)
	d.optedOut(backend.ProblemUnexpected, surplus)
	if len(missing)+len(surplus) == 0 && !slices.Equal(now[len(now)-1], want[len(want)-1]) {
		d.add(backend.ObjectChain, backend.ProblemDifferent, name+" has its rules in another order")
	}
}

func (d *differ) optedOut(problem backend.Problem, rules []rule) {
	for _, r := range rules {
		if address, ok := optedOutOf(r); ok {
			d.add(backend.ObjectPod, problem, fmt.Sprintf("%s, which opted out", address))
		} else {
			d.rules(nodeChain(d.settings), problem, []rule{r})
		}
	}
}

// unexpected names chains that nothing of this policy leads to.
func (d *differ) unexpected(keep bool) {
	s := d.settings
	for _, name := range slices.Sorted(maps.Keys(d.got.chains)) {
		switch {
		case !IsOwnChain(s, name) || slices.Contains(d.looked, name):
		case keep && name != s.PodsChain() && name != nodeChain(s):
		case name == s.PodsChain():
			d.add(backend.ObjectChain, backend.ProblemUnexpected, name+": the policy is for all sources")
		default:
			d.add(backend.ObjectChain, backend.ProblemUnexpected, name+": nothing of this policy leads there")
		}
	}
}

// withoutComment leaves out what every rule of the shared chain says about itself.
func withoutComment(r rule) rule {
	if i := slices.Index(r, "--comment"); i >= 2 && i+1 < len(r) && slices.Equal(r[i-2:i], rule{"-m", "comment"}) {
		return slices.Delete(slices.Clone(r), i-2, i+2)
	}
	return r
}
