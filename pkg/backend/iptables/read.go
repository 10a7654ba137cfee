package iptables

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

func (b *Backend) read(ctx context.Context, s policy.Settings, family policy.Family) (reading, error) {
	if b.isNFT() {
		return b.readNFT(ctx, s, family, s.Chain, s.PodsChain())
	}
	return b.readLegacy(ctx, s, family)
}

// readNFT reads POSTROUTING and the named chains. Of POSTROUTING nothing is asked that iptables would have to print, and it
// often cannot: native rules of other software belong there.
func (b *Backend) readNFT(ctx context.Context, s policy.Settings, family policy.Family, names ...string) (reading, error) {
	got := reading{}
	err := withNFT(family, func(c *nfnl.Conn) (err error) {
		if got.roots, err = nftRoots(c, s); err != nil {
			return err
		}
		if got.chains, err = b.readChainsNFT(ctx, c, family, names); err != nil {
			return err
		}
		if isUnreadable(got.chains[s.PodsChain()]) {
			got.lost, err = podsNFT(c, s, family)
		}
		return err
	})
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
		names := slices.DeleteFunc([]string{s.Chain, s.PodsChain()}, func(name string) bool {
			_, there := legacyChain(family, entries, name)
			return !there
		})
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
