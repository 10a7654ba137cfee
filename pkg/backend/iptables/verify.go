package iptables

import (
	"context"
	"fmt"
	"slices"
	"strings"

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
	got, err := b.readPods(ctx, s, table)
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
	lost := func(r rule) bool { // the chain cannot be printed, and the kernel was asked
		pod, _ := podOf(r)
		return slices.Contains(got.lost, pod)
	}
	want := wanted(s, table)
	for _, part := range []struct {
		list
		what string
	}{
		{list{s.PodsChain(), want.pods}, ""},
		{list{sourcesChain(s), want.sources}, "the source address that was chosen for "},
		{list{nodeChain(s), want.optedOut}, "the opting out of "},
	} {
		missing, _ := difference(part.rules, got.chains[part.name])
		for _, r := range missing {
			if part.name != s.PodsChain() || !lost(r) {
				address, _, _ := strings.Cut(r.value("-s"), "/")
				return &backend.Missing{Part: backend.PartPod, Detail: in(fmt.Sprintf("the rule for %s%s in %s", part.what, address, part.name))}
			}
		}
	}
	return nil
}

// readPods reads what there is beside the policy's chains.
func (b *Backend) readPods(ctx context.Context, s policy.Settings, table ruleset.Table) (reading, error) {
	if !b.isNFT() {
		return b.readLegacy(ctx, s, table.Family)
	}
	names := []string{s.PodsChain()}
	if slices.ContainsFunc(table.Pods, func(p ruleset.Pod) bool { return p.Translated.IsValid() }) {
		names = append(names, sourcesChain(s))
	}
	if hasNode(s) && len(table.OptedOut) > 0 {
		names = append(names, nodeChain(s))
	}
	return b.readChainsOfNFT(ctx, s, table.Family, names...)
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
