package iptables

import (
	"context"
	"fmt"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// Attach appends the pods' rules, provided that the root rule stands and the shared chain has rules. Rules that stand are not
// written twice; where an owner has other rules than the wanted ones, the state counts as incomplete.
func (b *Backend) Attach(ctx context.Context, want ruleset.State) error {
	for _, table := range want.Tables {
		attach := b.attachLegacy
		if b.isNFT() {
			attach = b.attachNFT
		}
		if err := attach(ctx, want.Settings, table); err != nil {
			return fmt.Errorf("attach %s: %w", table.Family, err)
		}
	}
	return nil
}

// attachLegacy checks in the transaction that appends: for the last rule of the shared chain, which is there exactly when the
// chain is neither missing nor flushed. The whole table is copied in any case, so checking costs nothing more.
func (b *Backend) attachLegacy(ctx context.Context, s policy.Settings, table ruleset.Table) error {
	missing, err := b.missingLegacy(ctx, s, table)
	if err != nil {
		return err
	}
	sc := newScript()
	sc.check(postrouting, rootRule(s))
	sc.check(s.Chain, lastRule(s))
	sc.appendAll(s.PodsChain(), missing)
	_, err = b.restore(ctx, table.Family, sc)
	return incomplete(err)
}

// missingLegacy starts a process only where the kernel names an owner already.
func (b *Backend) missingLegacy(ctx context.Context, s policy.Settings, table ruleset.Table) ([]rule, error) {
	want := podRules(s, table)
	if untouched(b.kind, table.Family, natTable) {
		return want, nil
	}
	entries, err := legacyEntries(table.Family, natTable)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", backend.ErrIncomplete, err)
	}
	if !slices.ContainsFunc(table.Pods, func(p ruleset.Pod) bool { return namesOwner(entries, p.Owner) }) {
		return want, nil
	}
	now, err := b.printed(ctx, table.Family, s.PodsChain())
	if err != nil {
		return nil, incomplete(err)
	}
	missing, surplus := difference(want, slices.DeleteFunc(now[s.PodsChain()], func(r rule) bool {
		pod, ok := podOf(r)
		return !ok || !ownerIn(table.Pods, pod.Owner)
	}))
	if len(surplus) > 0 {
		return nil, fmt.Errorf("%w: %s has other rules of this owner", backend.ErrIncomplete, s.PodsChain())
	}
	return missing, nil
}

// attachNFT asks the kernel for everything and then appends only. A check in the transaction would make iptables-nft read every
// rule of the chains that it names, ten thousand for as many prefixes, and one of the pods' chain for each pod; appending reads
// none. What other software changes in between is repaired like any other change.
func (b *Backend) attachNFT(ctx context.Context, s policy.Settings, table ruleset.Table) error {
	if err := nftFilled(table.Family, s.Chain); err != nil {
		return err
	}
	var missing []ruleset.Pod
	err := withNFT(table.Family, func(c *nfnl.Conn) (err error) {
		roots, err := nftRoots(c, s)
		if err != nil || !slices.ContainsFunc(roots, func(r root) bool { return slices.Equal(r.rule, rootRule(s)) }) {
			return fmt.Errorf("%w: no root rule in %s (%v)", backend.ErrIncomplete, postrouting, err) //nolint:errorlint // the reason does not matter to callers
		}
		missing, err = missingNFT(c, s, table)
		return err
	})
	if err != nil || len(missing) == 0 {
		return err
	}
	sc := newScript()
	sc.appendAll(s.PodsChain(), podRules(s, ruleset.Table{Family: table.Family, Pods: missing}))
	_, err = b.restore(ctx, table.Family, sc)
	return incomplete(err)
}

func missingNFT(c *nfnl.Conn, s policy.Settings, table ruleset.Table) ([]ruleset.Pod, error) {
	if len(table.Pods) == 0 {
		return nil, nil
	}
	rules, err := nftRulesWhere(c, s.PodsChain(), func(raw []byte) bool {
		return slices.ContainsFunc(table.Pods, func(p ruleset.Pod) bool { return namesOwner(raw, p.Owner) })
	})
	if err != nil {
		return nil, err
	}
	missing := slices.Clone(table.Pods)
	for _, raw := range rules {
		pod, to, _ := podOfNative(table.Family, nfnl.DecodeRule(raw))
		i := slices.Index(missing, pod)
		if i < 0 || to != s.Chain {
			return nil, fmt.Errorf("%w: %s has other rules of this owner", backend.ErrIncomplete, s.PodsChain())
		}
		missing = slices.Delete(missing, i, i+1)
	}
	return missing, nil
}

func ownerIn(pods []ruleset.Pod, id attachment.ID) bool {
	return slices.ContainsFunc(pods, func(p ruleset.Pod) bool { return p.Owner == id })
}

// lastRule ends the shared chain whatever the destinations are.
func lastRule(s policy.Settings) rule {
	rules := masqueradeRules(s, nil, masqueradeComment)
	return rules[len(rules)-1]
}

// incomplete turns a refused transaction into ErrIncomplete: what was refused is one of the checks.
func incomplete(err error) error {
	if err == nil || classified(err) {
		return err
	}
	return fmt.Errorf("%w: %w", backend.ErrIncomplete, err)
}
