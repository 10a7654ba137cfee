package iptables

import (
	"context"
	"fmt"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// Verify names the first thing that is missing.
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
	in := func(what string) string { return fmt.Sprintf("%s in table nat (%s, %s)", what, table.Family, b.kind) }
	got, err := b.readPods(ctx, s, table.Family)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(got.roots, func(r root) bool { return slices.Equal(r.rule, rootRule(s)) }) {
		return &backend.Missing{Part: backend.PartRoot, Detail: in("the jump to " + rootRule(s).target() + " from POSTROUTING")}
	}
	state, err := b.Chain(ctx, s, table.Family)
	if err != nil {
		return err
	}
	if state != backend.ChainFilled {
		return &backend.Missing{Part: backend.PartChain, Detail: in(fmt.Sprintf("%s is %s", s.Chain, state))}
	}
	for i, r := range podRules(s, table) {
		pod := table.Pods[i]
		if !slices.ContainsFunc(got.chains[s.PodsChain()], func(now rule) bool { return slices.Equal(r, now) }) && !slices.Contains(got.lost, pod) {
			return &backend.Missing{Part: backend.PartPod, Detail: in(fmt.Sprintf("the rule for %s in %s", pod.Address, s.PodsChain()))}
		}
	}
	return nil
}

// readPods reads what there is beside the shared chain.
func (b *Backend) readPods(ctx context.Context, s policy.Settings, family policy.Family) (reading, error) {
	if b.isNFT() {
		return b.readNFT(ctx, s, family, s.PodsChain())
	}
	return b.readLegacy(ctx, s, family)
}

// Chain asks the kernel for the state of the shared chain.
func (b *Backend) Chain(_ context.Context, s policy.Settings, family policy.Family) (backend.ChainState, error) {
	filled, there, err := false, false, error(nil)
	switch {
	case b.isNFT():
		if filled, err = nftHasRules(family, s.Chain); err == nil && !filled {
			there, err = nftHasChain(family, natTable, s.Chain)
		}
	case LegacyTable(family, natTable):
		var entries []byte
		entries, err = legacyEntries(family, natTable)
		rules, found := legacyChain(family, entries, s.Chain)
		filled, there = rules > 0, found
	}
	switch {
	case filled:
		return backend.ChainFilled, err
	case there:
		return backend.ChainEmpty, err
	}
	return backend.ChainMissing, err
}
