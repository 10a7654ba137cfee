package iptables

import (
	"context"
	"fmt"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// Apply sends the difference, one transaction per family, and reads the result back in the same process. An Observed without
// a reading of a family means that nothing is there: then chains are created, which fails rather than overwrites.
func (b *Backend) Apply(ctx context.Context, got backend.Observed, want ruleset.State) (bool, error) {
	raw, _ := got.Raw.(readings)
	changed := false
	for _, table := range want.Tables {
		wrote, err := b.applyTable(ctx, want, table, raw[table.Family])
		if err != nil {
			return changed, fmt.Errorf("apply %s rules: %w", table.Family, err)
		}
		changed = changed || wrote
	}
	return changed, nil
}

func (b *Backend) applyTable(ctx context.Context, want ruleset.State, table ruleset.Table, now reading) (bool, error) {
	p := plans(b.kind, want, table, now, true)
	if p.empty() {
		return false, nil
	}
	if p.drops && !b.canDrop(ctx, table.Family) {
		p = plans(b.kind, want, table, now, false)
	}
	write := b.writeLegacy
	if b.isNFT() {
		write = b.writeNFT
	}
	after, err := write(ctx, want.Settings, table.Family, p)
	if err != nil {
		return false, err
	}
	for _, chain := range p.dropped {
		delete(after.chains, chain)
	}
	if rest := plans(b.kind, want, table, after, true); !rest.empty() {
		return true, fmt.Errorf("%w: %w: %s", backend.ErrUnavailable, errDropped, rest.describe()[0])
	}
	return true, nil
}

// writeLegacy reads back in the process that wrote; a root rule that did not last fails it.
func (b *Backend) writeLegacy(ctx context.Context, s policy.Settings, family policy.Family, p plan) (reading, error) {
	p.expect(postrouting, rootRule(s))
	p.list(p.stands...)
	out, err := b.restore(ctx, family, p.script)
	if err == nil && !p.after.empty() {
		_, err = b.restore(ctx, family, p.after)
	}
	return reading{chains: parseChains(out), roots: []root{{rule: rootRule(s)}}}, err
}

// writeNFT reads back our chains in the process that wrote, and POSTROUTING over netlink.
func (b *Backend) writeNFT(ctx context.Context, s policy.Settings, family policy.Family, p plan) (after reading, err error) {
	if !p.script.empty() {
		if after.chains, err = b.writeChains(ctx, family, p); err != nil {
			return after, err
		}
	}
	if len(p.surplus) > 0 {
		if err := deleteSurplus(ctx, s, family); err != nil {
			return after, fmt.Errorf("delete former root rules: %w", err)
		}
	}
	if !p.after.empty() {
		if _, err := b.restore(ctx, family, p.after); err != nil {
			return after, err
		}
	}
	if after.chains == nil {
		return b.readNFT(ctx, s, family)
	}
	roots, err := b.readChainsOfNFT(ctx, s, family)
	after.roots = roots.roots
	return after, err
}

// writeChains remembers what iptables printed after the transaction, if no other one came between it and the kernel's reading.
func (b *Backend) writeChains(ctx context.Context, family policy.Family, p plan) (printed chains, err error) {
	err = withNFT(family, func(c *nfnl.Conn) error {
		before, err := c.Settled()
		if err != nil {
			return classifyKernel(err)
		}
		p.list(p.stands...)
		out, err := b.restore(ctx, family, p.script)
		if err != nil {
			return err
		}
		printed = parseChains(out)
		kept := map[string]content{}
		for _, name := range p.stands {
			raw, err := nftRules(c, name)
			if err != nil {
				return nil //nolint:nilerr // the next reading starts from nothing
			}
			kept[name] = contentOf(raw)
		}
		if after, err := c.Settled(); err != nil || after != before+1 {
			return nil //nolint:nilerr // as above
		}
		for name, is := range kept {
			if is.count == len(printed[name]) {
				remembered.keep(place{b.kind, family, name}, is, chains{name: printed[name]})
			}
		}
		return nil
	})
	return printed, err
}

// deleteSurplus deletes all root rules but the right one.
func deleteSurplus(ctx context.Context, s policy.Settings, family policy.Family) error {
	all := func(policy.Family, []byte) bool { return true }
	return deleteChosen(ctx, []string{postrouting}, []policy.Family{family}, all, func(rules [][]byte) [][]byte {
		surplus := planRootNFT(newScript(), s, rootsNFT(s, rules))
		return slices.DeleteFunc(rules, func(raw []byte) bool {
			return !slices.ContainsFunc(surplus, func(r root) bool { return r.handle == nfnl.DecodeRule(raw).Handle })
		})
	})
}
