package iptables

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

func (b *Backend) read(ctx context.Context, s policy.Settings, family policy.Family) (reading, error) {
	if b.isNFT() {
		return b.readNFT(ctx, s, family)
	}
	return b.readLegacy(ctx, s, family)
}

// readNFT reads POSTROUTING and all chains that are managed by ip-masq.
func (b *Backend) readNFT(ctx context.Context, s policy.Settings, family policy.Family) (got reading, err error) {
	err = withNFT(family, func(c *nfnl.Conn) error {
		names, err := ownChainsNFT(c, s)
		if err == nil {
			got, err = b.readOn(ctx, c, s, family, names)
		}
		return err
	})
	return got, err
}

// ownChainsNFT lists the chains managed by ip-masq that are there, those of a former policy as well. The kernel tells all chains
// of the family, which takes 0.3 µs for each.
func ownChainsNFT(c *nfnl.Conn, s policy.Settings) (names []string, err error) {
	var former []string
	for attempt := range readAttempts {
		all, err := c.Chains(natTable)
		names = nil
		for _, chain := range all {
			if IsOwnChain(s, chain.Name) {
				names = append(names, chain.Name)
			}
		}
		if !errors.Is(err, nfnl.ErrInterrupted) {
			return names, classifyKernel(err)
		}
		if attempt > 0 && slices.Equal(names, former) {
			return names, nil
		}
		former = names
	}
	return nil, classifyKernel(nfnl.ErrInterrupted)
}

// readChainsOfNFT reads POSTROUTING and the named chains. Of POSTROUTING nothing is asked that iptables would have to print, and
// it often cannot: native rules of other software belong there.
func (b *Backend) readChainsOfNFT(ctx context.Context, s policy.Settings, family policy.Family, names ...string) (got reading, err error) {
	err = withNFT(family, func(c *nfnl.Conn) error {
		got, err = b.readOn(ctx, c, s, family, names)
		return err
	})
	return got, err
}

func (b *Backend) readOn(ctx context.Context, c *nfnl.Conn, s policy.Settings, family policy.Family, names []string) (got reading, err error) {
	if got.roots, err = nftRoots(c, s); err != nil {
		return got, err
	}
	if got.chains, err = b.readChainsNFT(ctx, c, family, names); err != nil {
		return got, err
	}
	if isUnreadable(got.chains[s.PodsChain()]) {
		got.lost, err = podsNFT(c, s, family)
	}
	return got, err
}

// readChainsNFT takes what iptables prints for true if the kernel holds the same before and after it: iptables-nft 1.8.9
// silently ends early when other software changes the ruleset meanwhile.
func (b *Backend) readChainsNFT(ctx context.Context, c *nfnl.Conn, family policy.Family, names []string) (chains, error) {
	for range listAttempts {
		got := chains{}
		unknown := map[string]content{}
		for _, name := range names {
			raw, there, err := chainOf(c, name)
			if err != nil {
				return nil, err
			}
			is := contentOf(raw)
			known, ok := remembered.recall(place{b.kind, family, name}, is)
			switch {
			case !there:
			case len(raw) == 0:
				got[name] = []rule{}
			case ok:
				got[name] = known[name]
			default:
				unknown[name] = is
			}
		}
		if len(unknown) == 0 {
			return got, nil
		}
		printed, err := b.printed(ctx, family, slices.Sorted(maps.Keys(unknown))...)
		if err != nil {
			return nil, err
		}
		for name, is := range unknown {
			if raw, err := nftRules(c, name); err != nil || contentOf(raw) != is {
				continue
			}
			if len(printed[name]) != is.count {
				printed[name] = []rule{unreadable}
			}
			remembered.keep(place{b.kind, family, name}, is, chains{name: printed[name]})
		}
	}
	return nil, fmt.Errorf("%w: the chains %q change all the time", backend.ErrBusy, names)
}

// listAttempts is for chains that other programs change while they are listed.
const listAttempts = 10

// printed lists chains that are there, in one process. That fails as a whole where a native rule is in one of them; then each
// is listed alone. go-iptables would start one process for each, and one before to learn the version, where a pod starts.
func (b *Backend) printed(ctx context.Context, family policy.Family, names ...string) (chains, error) {
	sc := newScript()
	sc.list(names...)
	out, err := b.restore(ctx, family, sc)
	switch {
	case err == nil:
		return parseChains(out), nil
	case !refused(err):
		return nil, err
	case len(names) == 1:
		return chains{names[0]: {unreadable}}, nil
	}
	got := chains{}
	for _, name := range names {
		one, err := b.printed(ctx, family, name)
		if err != nil {
			return nil, err
		}
		maps.Copy(got, one)
	}
	return got, nil
}

// readLegacy lists chains only where the table, which the kernel gives away as a whole, is not as it was the last time.
func (b *Backend) readLegacy(ctx context.Context, s policy.Settings, family policy.Family) (reading, error) {
	if untouched(b.kind, family, natTable) {
		return reading{}, nil
	}
	at := place{b.kind, family, s.Chain}
	for range listAttempts {
		entries, err := legacyEntries(family, natTable)
		if err != nil {
			return reading{}, classifyKernel(err)
		}
		before := contentOfBytes(legacyContent(family, entries))
		if known, ok := remembered.recall(at, before); ok {
			return reading{chains: known, roots: rootsOf(s, known[postrouting])}, nil
		}
		names := slices.DeleteFunc(legacyChains(family, entries), func(name string) bool { return !IsOwnChain(s, name) })
		printed, err := b.printed(ctx, family, append(names, postrouting)...)
		if err != nil {
			return reading{}, err
		}
		if entries, err := legacyEntries(family, natTable); err == nil && contentOfBytes(legacyContent(family, entries)) == before {
			remembered.keep(at, before, printed)
		}
	}
	return reading{}, fmt.Errorf("%w: table %s changes all the time", backend.ErrBusy, natTable)
}

// rootsOf reads POSTROUTING as iptables printed it.
func rootsOf(s policy.Settings, rules []rule) []root {
	roots := make([]root, len(rules))
	for i, r := range rules {
		roots[i].final = endsTraversal(r)
		if slices.Equal(r, rootRule(s)) || isRoot(s, r) {
			roots[i].rule = r
		}
	}
	return roots
}
