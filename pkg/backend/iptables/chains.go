package iptables

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Chains lists the shared chains to which a rule of POSTROUTING leads that an ip-masq-agent wrote, by its comment. One process is
// started for iptables-legacy, where the table has such a comment.
func (b *Backend) Chains(ctx context.Context, family policy.Family) ([]string, error) {
	roots, err := b.commentedRoots(ctx, family)
	if err != nil {
		return nil, fmt.Errorf("look for root rules of %s: %w", family, err)
	}
	var names []string
	for _, r := range roots {
		if name, ok := chainOfRoot(r); ok && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// chainOfRoot names the shared chain of a root rule whose comment is one that an agent writes for just this target. Somebody's
// comment that only begins like ours makes no chain ours.
func chainOfRoot(r rule) (string, bool) {
	name := r.target()
	if pods, ok := strings.CutSuffix(name, policy.Settings{}.PodsChain()); ok && r.value("--comment") == podsRootComment {
		name = pods
	}
	known := slices.ContainsFunc(knownRoots(policy.Settings{Chain: name}), func(k rule) bool {
		return k.value("--comment") == r.value("--comment") && k.target() == r.target()
	})
	return name, name != "" && known
}

// commentedRoots returns the rules of POSTROUTING, of nf_tables only comment and target.
func (b *Backend) commentedRoots(ctx context.Context, family policy.Family) (roots []rule, err error) {
	if b.isNFT() {
		err = withNFT(family, func(c *nfnl.Conn) error {
			rules, err := nftRules(c, postrouting)
			for _, raw := range rules {
				r := nfnl.DecodeRule(raw)
				roots = append(roots, rule{"-m", "comment", "--comment", nfnl.XTComment(r), "-j", nfnl.Target(r)})
			}
			return err
		})
		return roots, err
	}
	if untouched(b.kind, family, natTable) {
		return nil, nil
	}
	if named, err := legacyNames(family, "ip-masq-agent:"); err == nil && !named {
		return nil, nil
	}
	printed, err := b.printed(ctx, family, postrouting)
	return printed[postrouting], err
}

// RemoveAll takes out the given chains and all others that Chains finds, and what a killed probe left.
func (b *Backend) RemoveAll(ctx context.Context, names ...string) error {
	var failures []error
	for _, family := range []policy.Family{policy.IPv4, policy.IPv6} {
		found, err := b.Chains(ctx, family)
		failures = append(failures, err)
		for _, name := range slices.Compact(slices.Sorted(slices.Values(append(found, names...)))) {
			failures = append(failures, b.Remove(ctx, policy.Settings{Chain: name}, family))
		}
		if len(found)+len(names) == 0 && b.host.Leftover(b.kind, family) {
			_, err := b.removeChain(ctx, policy.Settings{}, family, probeChain)
			failures = append(failures, err)
		}
	}
	return errors.Join(failures...)
}
