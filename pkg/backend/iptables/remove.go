package iptables

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Remove takes the root rules, then our rules, then our chains: what is left when it is interrupted masquerades nothing, and the
// next Remove finishes. A chain in which other software has a rule, or to which its rule leads, stays without our rules; the
// error is a *backend.Kept that names those.
func (b *Backend) Remove(ctx context.Context, s policy.Settings, family policy.Family) error {
	got, err := b.read(ctx, s, family)
	if err != nil {
		return err
	}
	kept, err := b.removeAll(ctx, s, family, got)
	if err != nil {
		return fmt.Errorf("remove %s rules: %w", family, err)
	}
	if len(kept) > 0 {
		return &backend.Kept{Place: fmt.Sprintf("table nat (%s, %s)", family, b.kind), Rules: kept}
	}
	return nil
}

func (b *Backend) removeAll(ctx context.Context, s policy.Settings, family policy.Family, got reading) (kept []string, err error) {
	if err := b.removeRoots(ctx, s, family, got.roots); err != nil {
		return nil, err
	}
	for _, chain := range removalOrder(s, got.chains) {
		rules, there := got.chains[chain]
		if chain == probeChain {
			there = b.host.Leftover(b.kind, family)
		}
		if !there {
			continue
		}
		foreign := foreignIn(family, chain, rules)
		if len(foreign) > 0 {
			kept = append(kept, foreign...)
			err = b.removeOurs(ctx, family, chain, rules)
		} else {
			foreign, err = b.removeChain(ctx, s, family, chain)
			kept = append(kept, foreign...)
		}
		if err != nil {
			return kept, err
		}
	}
	return kept, nil
}

// removalOrder lists the chains that are there, each before those that it leads to, and the probe's.
func removalOrder(s policy.Settings, got chains) []string {
	order := []string{s.PodsChain(), nodeChain(s), s.Chain, interfacesChain(s)}
	for _, chain := range slices.Sorted(maps.Keys(got)) {
		if isGroupChain(s, chain) {
			order = append(order, chain)
		}
	}
	return append(order, sourcesChain(s), probeChain)
}

// removeRoots deletes our root rules by their handles where they have such: in front of them may be a native rule of other
// software, behind which iptables finds nothing.
func (b *Backend) removeRoots(ctx context.Context, s policy.Settings, family policy.Family, roots []root) error {
	if !slices.ContainsFunc(roots, func(r root) bool { return r.rule != nil }) {
		return nil
	}
	if b.isNFT() {
		return deleteNFT(ctx, []string{postrouting}, []policy.Family{family}, func(_ policy.Family, raw []byte) bool { return rootOf(s, nfnl.DecodeRule(raw)) != nil })
	}
	_, err := call(ctx, b, family, func(t tables) (bool, error) {
		for _, r := range roots {
			if r.rule == nil {
				continue
			}
			if err := t.Delete(natTable, postrouting, r.rule...); err != nil {
				return false, err
			}
		}
		return true, nil
	})
	return err
}

// removeOurs leaves the rules of other software in a chain.
func (b *Backend) removeOurs(ctx context.Context, family policy.Family, chain string, rules []rule) error {
	if b.isNFT() {
		return deleteNFT(ctx, []string{chain}, []policy.Family{family}, func(_ policy.Family, raw []byte) bool { return isOurComment(nfnl.XTComment(nfnl.DecodeRule(raw))) })
	}
	_, err := call(ctx, b, family, func(t tables) (bool, error) {
		for _, r := range rules {
			if !isOurs(r) {
				continue
			}
			if err := t.Delete(natTable, chain, r...); err != nil {
				return false, err
			}
		}
		return true, nil
	})
	return err
}

// removeChain flushes a chain and deletes it. It returns what leads there, if anything does.
func (b *Backend) removeChain(ctx context.Context, s policy.Settings, family policy.Family, chain string) (leading []string, err error) {
	_, err = call(ctx, b, family, func(t tables) (bool, error) {
		if err := t.ClearChain(natTable, chain); err != nil {
			return false, err
		}
		return true, t.DeleteChain(natTable, chain)
	})
	inUse := refused(err) || b.isNFT() && errors.Is(err, backend.ErrBusy) // to iptables-nft a chain in use is a resource that is busy
	if err == nil || !inUse || ctx.Err() != nil {
		return nil, err
	}
	if leading = b.leadingIn(ctx, s, family); len(leading) == 0 {
		leading = []string{fmt.Sprintf("a rule in another chain of table nat that jumps to %s", chain)}
	}
	return leading, nil
}

// isOurs recognises a rule of any ip-masq-agent by its comment.
func isOurs(r rule) bool { return isOurComment(r.value("--comment")) }

func isOurComment(comment string) bool {
	comment = strings.TrimPrefix(comment, `"`)
	return strings.HasPrefix(comment, "ip-masq-agent:") || strings.HasPrefix(comment, podCommentPrefix+" ")
}

// foreignIn lists the rules of a chain that no ip-masq-agent wrote.
func foreignIn(family policy.Family, chain string, rules []rule) []string {
	if isUnreadable(rules) {
		table := "ip"
		if family == policy.IPv6 {
			table = "ip6"
		}
		return []string{fmt.Sprintf("a native rule in chain %s, which nft list chain %s nat %s shows", chain, table, chain)}
	}
	var foreign []string
	for _, r := range rules {
		if !isOurs(r) {
			foreign = append(foreign, fmt.Sprintf("-A %s %s", chain, r))
		}
	}
	return foreign
}

// builtinChains are where other software's jump to our chains is looked for: to search every chain would be to list the table.
var builtinChains = []string{"PREROUTING", "INPUT", "OUTPUT", postrouting}

// leadingIn lists the rules of the built-in chains that lead into ours and are not ours.
func (b *Backend) leadingIn(ctx context.Context, s policy.Settings, family policy.Family) []string {
	var found []string
	for _, chain := range builtinChains {
		rules, err := b.list(ctx, family, natTable, chain)
		if err != nil {
			continue
		}
		for _, r := range rules {
			if IsOwnChain(s, r.target()) && !isRoot(s, r) {
				found = append(found, fmt.Sprintf("-A %s %s", chain, withoutCounters(r)))
			}
		}
	}
	return found
}
