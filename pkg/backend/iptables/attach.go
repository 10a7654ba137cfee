package iptables

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// Attach adds the pods' rules, and those of addresses that opted out, provided that the root rule stands and the shared chain has
// rules. Rules that stand are not written twice; where an owner has other rules than the wanted ones, the state counts as
// incomplete. The chains of the policy's destinations are not read, however many there are.
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

// additions are what an Attach adds.
type additions struct {
	pods     []rule // to the pods' chain
	sources  []rule // to the chain of those that chose their source address
	optedOut []rule // to the chain of what is no pod's
}

// wanted are the additions where nothing of them is there.
func wanted(s policy.Settings, table ruleset.Table) additions {
	a := additions{pods: podRules(s, table), sources: sourceRules(s, table)}
	if hasNode(s) {
		for _, address := range table.OptedOut {
			a.optedOut = append(a.optedOut, optedOutRule(table.Family, address))
		}
	}
	return a
}

func (a additions) into(sc *script, s policy.Settings) {
	sc.appendAll(sourcesChain(s), a.sources)
	sc.addPods(s, a.pods)
	for _, r := range a.optedOut {
		sc.insert(nodeChain(s), 0, r)
	}
}

// chains are those that must have rules, and those that must be there: the chain of pods with an address of their choice is
// empty while there is none.
func (a additions) chains(s policy.Settings) (filled, there []string) {
	filled = []string{s.Chain}
	if len(a.optedOut) > 0 {
		filled = append(filled, nodeChain(s))
	}
	if len(a.sources) > 0 {
		there = append(there, sourcesChain(s))
	}
	return filled, there
}

func lacks(chain string) error {
	return fmt.Errorf("%w: chain %s is missing or empty", backend.ErrIncomplete, chain)
}

// attachLegacy reads the table as the kernel holds it, which is copied as a whole in any case, and checks the root rule in the
// transaction that adds.
func (b *Backend) attachLegacy(ctx context.Context, s policy.Settings, table ruleset.Table) error {
	if untouched(b.kind, table.Family, natTable) {
		return lacks(s.Chain)
	}
	entries, err := legacyEntries(table.Family, natTable)
	if err != nil {
		return fmt.Errorf("%w: %w", backend.ErrIncomplete, err)
	}
	add := wanted(s, table)
	filled, there := add.chains(s)
	for _, chain := range append(filled, there...) {
		if rules, found := legacyChain(table.Family, entries, chain); !found || rules == 0 && slices.Contains(filled, chain) {
			return lacks(chain)
		}
	}
	named := slices.ContainsFunc(table.Pods, func(p ruleset.Pod) bool { return namesOwner(entries, p.Owner) })
	if named || len(add.optedOut) > 0 {
		var names []string
		for _, chain := range []string{s.PodsChain(), sourcesChain(s), nodeChain(s)} {
			if _, found := legacyChain(table.Family, entries, chain); found {
				names = append(names, chain)
			}
		}
		if add, err = b.missing(ctx, s, table, names...); err != nil {
			return err
		}
	}
	sc := newScript()
	sc.check(postrouting, rootRule(s))
	add.into(sc, s)
	_, err = b.restore(ctx, table.Family, sc)
	return incomplete(err)
}

// missing compares with what iptables prints of the chains.
func (b *Backend) missing(ctx context.Context, s policy.Settings, table ruleset.Table, names ...string) (add additions, err error) {
	now, err := b.printed(ctx, table.Family, names...)
	if err != nil {
		return add, incomplete(err)
	}
	add = wanted(s, table)
	for _, part := range []struct {
		chain string
		rules *[]rule
	}{{s.PodsChain(), &add.pods}, {sourcesChain(s), &add.sources}} {
		owned := slices.DeleteFunc(now[part.chain], func(r rule) bool {
			pod, ok := podOf(r)
			return !ok || !ownerIn(table.Pods, pod.Owner)
		})
		missing, surplus := difference(*part.rules, owned)
		if len(surplus) > 0 {
			return add, fmt.Errorf("%w: %s has other rules of this owner", backend.ErrIncomplete, part.chain)
		}
		*part.rules = missing
	}
	add.optedOut, _ = difference(add.optedOut, now[nodeChain(s)])
	return add, nil
}

// attachNFT asks the kernel for everything and then appends only. A check in the transaction would make iptables-nft read every
// rule of the chains that it names, ten thousand for as many prefixes, and one of the pods' chain for each pod; appending reads
// none. What other software changes in between is repaired like any other change.
func (b *Backend) attachNFT(ctx context.Context, s policy.Settings, table ruleset.Table) error {
	add := wanted(s, table)
	filled, there := add.chains(s)
	for _, chain := range filled {
		if err := nftFilled(table.Family, chain); err != nil {
			return err
		}
	}
	named := false
	err := withNFT(table.Family, func(c *nfnl.Conn) error {
		roots, err := nftRoots(c, s)
		if err != nil || !slices.ContainsFunc(roots, func(r root) bool { return slices.Equal(r.rule, rootRule(s)) }) {
			return fmt.Errorf("%w: no root rule in %s (%v)", backend.ErrIncomplete, postrouting, err) //nolint:errorlint // the reason does not matter to callers
		}
		for _, chain := range there {
			if _, found, err := c.Chain(natTable, chain); err != nil || !found {
				return lacks(chain)
			}
		}
		if add.pods, err = missingNFT(c, s, table); err != nil {
			return err
		}
		if hasSources(s, table) {
			held, err := namedIn(c, sourcesChain(s), table.Pods)
			named = len(held) > 0
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	if named {
		sources, err := b.missing(ctx, s, table, sourcesChain(s))
		if err != nil {
			return err
		}
		add.sources = sources.sources
	}
	if add.optedOut, err = missingOptedOut(s, table, add.optedOut); err != nil {
		return err
	}
	sc := newScript()
	if add.into(sc, s); sc.empty() {
		return nil
	}
	_, err = b.restore(ctx, table.Family, sc)
	return incomplete(err)
}

// namedIn reads the rules of a chain that name an owner of the pods.
func namedIn(c *nfnl.Conn, chain string, pods []ruleset.Pod) ([][]byte, error) {
	if len(pods) == 0 {
		return nil, nil
	}
	return nftRulesWhere(c, chain, func(raw []byte) bool {
		return slices.ContainsFunc(pods, func(p ruleset.Pod) bool { return namesOwner(raw, p.Owner) })
	})
}

func missingNFT(c *nfnl.Conn, s policy.Settings, table ruleset.Table) ([]rule, error) {
	if s.Sources == policy.SourcesAll {
		return nil, nil
	}
	rules, err := namedIn(c, s.PodsChain(), table.Pods)
	if err != nil {
		return nil, err
	}
	missing := slices.Clone(table.Pods)
	for i := range missing {
		missing[i].Translated = netip.Addr{} // which is in another chain
	}
	for _, raw := range rules {
		pod, to, _ := podOfNative(table.Family, nfnl.DecodeRule(raw))
		i := slices.Index(missing, pod)
		if i < 0 || to != s.Chain {
			return nil, fmt.Errorf("%w: %s has other rules of this owner", backend.ErrIncomplete, s.PodsChain())
		}
		missing = slices.Delete(missing, i, i+1)
	}
	return podRules(s, ruleset.Table{Family: table.Family, Pods: missing}), nil
}

// missingOptedOut leaves out the rules that stand.
func missingOptedOut(s policy.Settings, table ruleset.Table, rules []rule) ([]rule, error) {
	if len(rules) == 0 {
		return nil, nil
	}
	standing, err := optedOutNFT(s, table.Family)
	return slices.DeleteFunc(rules, func(r rule) bool {
		address, _ := optedOutOf(r)
		return slices.Contains(standing, address)
	}), err
}

func ownerIn(pods []ruleset.Pod, id attachment.ID) bool {
	return slices.ContainsFunc(pods, func(p ruleset.Pod) bool { return p.Owner == id })
}

// incomplete turns a refused transaction into ErrIncomplete: what was refused is one of the checks.
func incomplete(err error) error {
	if err == nil || classified(err) {
		return err
	}
	return fmt.Errorf("%w: %w", backend.ErrIncomplete, err)
}
