package nftables

import (
	"context"
	"fmt"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// Diff tells the steps of the plan, with the members of sets one by one.
func (b *Backend) Diff(got backend.Observed, want ruleset.State) []string {
	now, observed := got.Raw.(*reading)
	if !observed {
		now = &reading{}
	}
	t := aim(want, now, b.changes)
	objects := nfnl.NewBatch()
	now = planTable(objects, t, now)
	planSets(objects, t, now)
	lines := objects.Steps()
	for _, set := range t.sets {
		missing, surplus := difference(set.members, now.sets[set.Name].members)
		for _, m := range surplus {
			lines = append(lines, fmt.Sprintf("delete %s from set %s", m, set.Name))
		}
		for _, m := range missing {
			lines = append(lines, fmt.Sprintf("add %s to set %s", m, set.Name))
		}
	}
	return append(lines, plans(t, now).use.Steps()...)
}

// Counters reads the rules of the shared chain that concern the family.
func (b *Backend) Counters(ctx context.Context, s policy.Settings, family policy.Family) ([]backend.Counter, error) {
	var counters []backend.Counter
	err := session(ctx, func(c *nfnl.Conn) error {
		rules, err := ownRules(ctx, c)
		for _, r := range rules[s.Chain] {
			if f, ok := familyOf(r); ok && f != family {
				continue
			}
			packets, bytes := nfnl.Counted(r)
			counters = append(counters, backend.Counter{Rule: describe(s, r), Packets: packets, Bytes: bytes})
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read %s counters: %w", family, err)
	}
	return counters, nil
}

// describe finds the text of a rule that was read. One that is not ours is named by what it is made of.
func describe(s policy.Settings, r nfnl.Rule) string {
	for i := range 2 {
		for _, known := range chainRules(s, families, map[policy.Family]string{policy.IPv4: keepSets(policy.IPv4)[i], policy.IPv6: keepSets(policy.IPv6)[i]}) {
			if sameRule(known, r) {
				return known.Text
			}
		}
	}
	var names []string
	for _, expr := range r.Exprs {
		names = append(names, nfnl.ExprName(expr))
	}
	return "unknown rule of " + strings.Join(names, ", ")
}
