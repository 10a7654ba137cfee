package iptables

import (
	"context"
	"fmt"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// Verify checks everything in one process per family, and reads rule by rule only to name what is missing.
func (b *Backend) Verify(ctx context.Context, want ruleset.State) error {
	for _, table := range want.Tables {
		if err := b.verifyTable(ctx, want.Settings, table); err != nil {
			return err
		}
	}
	return nil
}

// verifyTable does not insist on what the shared chain says: that is between the agent and whoever else wrote it.
func (b *Backend) verifyTable(ctx context.Context, s policy.Settings, table ruleset.Table) error {
	sc := newScript()
	sc.check(postrouting, rootRule(s))
	for _, r := range podRules(s, table) {
		sc.check(s.PodsChain(), r)
	}
	sc.list(s.Chain)
	if !b.untouched(table.Family) {
		out, err := b.restore(ctx, table.Family, sc)
		if err == nil && len(parseChains(out)[s.Chain]) > 0 {
			return nil
		}
		if err != nil && classified(err) && !b.opaque(err) {
			return err
		}
	}
	return b.firstMissing(ctx, s, table)
}

func (b *Backend) firstMissing(ctx context.Context, s policy.Settings, table ruleset.Table) error {
	got, err := b.read(ctx, s, table.Family)
	if err != nil {
		return err
	}
	in := func(what string) string { return fmt.Sprintf("%s in table nat (%s, %s)", what, table.Family, b.kind) }
	if count(got[postrouting], rootRule(s)) == 0 {
		return &backend.Missing{Part: backend.PartRoot, Detail: in("the jump to " + rootRule(s).target() + " from POSTROUTING")}
	}
	if state := chainState(got, s.Chain); state != backend.ChainFilled {
		return &backend.Missing{Part: backend.PartChain, Detail: in(fmt.Sprintf("%s is %s", s.Chain, state))}
	}
	for i, r := range podRules(s, table) {
		if count(got[s.PodsChain()], r) == 0 {
			return &backend.Missing{Part: backend.PartPod, Detail: in(fmt.Sprintf("the rule for %s in %s", table.Pods[i].Address, s.PodsChain()))}
		}
	}
	return nil
}

// Chain lists the shared chain.
func (b *Backend) Chain(ctx context.Context, s policy.Settings, family policy.Family) (backend.ChainState, error) {
	if b.untouched(family) {
		return backend.ChainMissing, nil
	}
	got, err := b.list(ctx, family, s.Chain)
	if err != nil && classified(err) {
		return "", err
	}
	return chainState(got, s.Chain), nil
}
