package iptables

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Chains reads POSTROUTING for jumps that say that they are an ip-masq-agent's.
func (b *Backend) Chains(ctx context.Context, family policy.Family) ([]string, error) {
	if b.untouched(family) {
		return nil, nil
	}
	got, err := b.list(ctx, family, postrouting)
	if err != nil {
		return nil, fmt.Errorf("read the %s root rules: %w", family, err)
	}
	var chains []string
	for _, r := range got[postrouting] {
		chain := strings.TrimSuffix(r.target(), policy.Settings{}.PodsChain())
		if isOurs(r) && chain != "" && !slices.Contains(chains, chain) {
			chains = append(chains, chain)
		}
	}
	return chains, nil
}

// RemoveAll removes chain by chain.
func (b *Backend) RemoveAll(ctx context.Context, chains ...string) error {
	var failures []error
	for _, family := range []policy.Family{policy.IPv4, policy.IPv6} {
		if b.untouched(family) {
			continue
		}
		found, err := b.Chains(ctx, family)
		failures = append(failures, err)
		all := append(slices.Clone(chains), found...)
		slices.Sort(all)
		for _, chain := range slices.Compact(all) {
			failures = append(failures, b.Remove(ctx, policy.Settings{Chain: chain}, family))
		}
	}
	return errors.Join(failures...)
}

var _ backend.Backend = (*Backend)(nil)
