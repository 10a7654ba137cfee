package iptables

import (
	"fmt"
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
		if plans(b.kind, want, table, d.got).empty() {
			continue // additions of other programs that Apply leaves alone
		}
		d.roots()
		d.shared(want.KeepChain)
		d.pods()
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

// shared compares the shared chain rule by rule; the order of rules is their meaning.
func (d *differ) shared(keep bool) {
	now, there := d.got.chains[d.settings.Chain]
	want := chainRules(d.settings, d.table)
	switch {
	case !there:
		d.add(backend.ObjectChain, backend.ProblemMissing, d.settings.Chain)
	case isUnreadable(now):
		d.add(backend.ObjectChain, backend.ProblemDifferent, d.settings.Chain+" has rules that iptables cannot print")
		return
	case keep && len(now) > 0, slices.EqualFunc(now, want, slices.Equal):
		return
	}
	missing, surplus := difference(want, now)
	d.rules(backend.ProblemMissing, missing)
	d.rules(backend.ProblemUnexpected, surplus)
	if len(missing)+len(surplus) == 0 && there {
		d.add(backend.ObjectChain, backend.ProblemDifferent, d.settings.Chain+" has its rules in another order")
	}
}

func (d *differ) rules(problem backend.Problem, rules []rule) {
	for _, r := range rules {
		d.add(backend.ObjectPolicyRule, problem, d.settings.Chain+" "+withoutComment(r).String())
	}
}

// pods compares the pods' chain. What is no pod's rule does not belong there.
func (d *differ) pods() {
	name := d.settings.PodsChain()
	now, there := d.got.chains[name]
	switch {
	case d.settings.Sources == policy.SourcesAll:
		if there {
			d.add(backend.ObjectChain, backend.ProblemUnexpected, name+": the policy is for all sources")
		}
		return
	case !there:
		d.add(backend.ObjectChain, backend.ProblemMissing, name)
	case isUnreadable(now):
		d.add(backend.ObjectChain, backend.ProblemDifferent, name+" has rules that iptables cannot print")
		return
	}
	missing, surplus := difference(podRules(d.settings, d.table), now)
	for _, r := range missing {
		pod, _ := podOf(r)
		d.add(backend.ObjectPod, backend.ProblemMissing, fmt.Sprintf("%s of %s", pod.Address, pod.Label))
	}
	for _, r := range surplus {
		if pod, ok := podOf(r); ok {
			d.add(backend.ObjectPod, backend.ProblemUnexpected, fmt.Sprintf("%s of %s", pod.Address, pod.Label))
		} else {
			d.add(backend.ObjectChain, backend.ProblemDifferent, name+" has a rule that is no pod's: "+r.String())
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
