package iptables

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// Attach appends the pods' rules, provided that the root rule stands and the shared chain has rules.
func (b *Backend) Attach(ctx context.Context, want ruleset.State) error {
	for _, table := range want.Tables {
		attach := b.attachLegacy
		if b.kind == backend.IPTablesNFT {
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
	sc := newScript()
	sc.check(postrouting, rootRule(s))
	sc.check(s.Chain, lastRule(s))
	sc.appendAll(s.PodsChain(), podRules(s, table))
	_, err := b.restore(ctx, table.Family, sc)
	return incomplete(err)
}

// attachNFT asks the kernel for both and then appends only. A check in the transaction would make iptables-nft read every rule
// of the chains that it names, ten thousand for as many prefixes, and one of the pods' chain for each pod; appending reads none.
// What somebody changes in between is repaired like any other change.
func (b *Backend) attachNFT(ctx context.Context, s policy.Settings, table ruleset.Table) error {
	roots, err := nftRoots(table.Family, rootRule(s))
	if err != nil || len(roots) == 0 {
		return fmt.Errorf("%w: no root rule in POSTROUTING (%v)", backend.ErrIncomplete, err) //nolint:errorlint // the reason does not matter to callers
	}
	if filled, err := nftHasRules(table.Family, s.Chain); err != nil || !filled {
		return fmt.Errorf("%w: %s is missing or empty (%v)", backend.ErrIncomplete, s.Chain, err) //nolint:errorlint // as above
	}
	sc := newScript()
	sc.appendAll(s.PodsChain(), podRules(s, table))
	if sc.empty() {
		return nil
	}
	_, err = b.restore(ctx, table.Family, sc)
	return incomplete(err)
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

// Detach deletes the recorded pods' rules in one transaction; where there is no record or it is not exact, the owner's rules
// are looked for. Every owner of an address has a rule of its own, so it does not matter who else is on record with it.
func (b *Backend) Detach(ctx context.Context, s policy.Settings, families []policy.Family, id attachment.ID, known []ruleset.Pod, _ backend.OnRecord) error {
	var failures []error
	for _, family := range families {
		if err := b.detachFamily(ctx, s, family, id, ofFamily(known, family)); err != nil {
			failures = append(failures, fmt.Errorf("detach %s: %w", family, err))
		}
	}
	return errors.Join(failures...)
}

func (b *Backend) detachFamily(ctx context.Context, s policy.Settings, family policy.Family, id attachment.ID, known []ruleset.Pod) error {
	if len(known) > 0 {
		err := b.deleteRules(ctx, s, family, podRules(s, ruleset.Table{Family: family, Pods: known}))
		if err == nil {
			return nil
		}
		// Somebody may hold a lock, or iptables be gone or hang: where the kernel names no rule of the owner, none is needed.
		if classified(err) && b.mayHold(s, family, id) {
			return err
		}
	}
	rules, err := b.rulesOf(ctx, s, family, id)
	if err != nil || len(rules) == 0 {
		return err
	}
	return b.deleteRules(ctx, s, family, rules)
}

// mayHold reports whether the kernel may have a rule of the owner. It is false only where that is certain.
func (b *Backend) mayHold(s policy.Settings, family policy.Family, id attachment.ID) bool {
	if b.untouched(family) {
		return false
	}
	named, err := mentions(b.kind, family, s.PodsChain(), string(id))
	return named || err != nil
}

// rulesOf finds an owner's rules. A chain that cannot be read because it, its table or iptables is not there has none, unless
// the kernel itself names the owner.
func (b *Backend) rulesOf(ctx context.Context, s policy.Settings, family policy.Family, id attachment.ID) ([]rule, error) {
	if b.untouched(family) {
		return nil, nil
	}
	named, peekErr := mentions(b.kind, family, s.PodsChain(), string(id))
	if peekErr == nil && !named {
		return nil, nil
	}
	for range listAttempts {
		got, err := b.list(ctx, family, s.PodsChain())
		if err != nil && (named || errors.Is(err, backend.ErrBusy) || ctx.Err() != nil) {
			return nil, err
		}
		rules := slices.DeleteFunc(got[s.PodsChain()], func(r rule) bool {
			pod, ok := podOf(r)
			return !ok || pod.Owner != id
		})
		if len(rules) > 0 || !named {
			return rules, nil
		}
	}
	return nil, fmt.Errorf("%w: the kernel has a rule of this owner that %s does not list", backend.ErrBusy, b.kind)
}

// listAttempts is for iptables-nft 1.8.9, whose listing silently ends early when somebody changes the ruleset during it.
const listAttempts = 5

func (b *Backend) deleteRules(ctx context.Context, s policy.Settings, family policy.Family, rules []rule) error {
	sc := newScript()
	for _, r := range rules {
		sc.delete(s.PodsChain(), r)
	}
	_, err := b.restore(ctx, family, sc)
	return err
}

func ofFamily(pods []ruleset.Pod, family policy.Family) []ruleset.Pod {
	return slices.DeleteFunc(slices.Clone(pods), func(p ruleset.Pod) bool { return policy.FamilyOf(p.Address) != family })
}
