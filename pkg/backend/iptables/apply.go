package iptables

import (
	"context"
	"errors"
	"fmt"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// Apply sends the difference, one transaction per family, and reads the result back in the same process. An Observed without
// a reading of a family means that nothing is there: then chains are created, which fails rather than overwrites.
func (b *Backend) Apply(ctx context.Context, got backend.Observed, want ruleset.State) (bool, error) {
	raw, _ := got.Raw.(reading)
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

func (b *Backend) applyTable(ctx context.Context, want ruleset.State, table ruleset.Table, now chains) (bool, error) {
	sc := plan(want.Settings, want.KeepChain, table, now)
	if sc.empty() {
		return false, nil
	}
	if b.kind == backend.IPTablesLegacy {
		sc.expect(postrouting, rootRule(want.Settings))
	}
	sc.list(ownChains(want.Settings)...)
	out, err := b.restore(ctx, table.Family, sc)
	if err != nil {
		return false, err
	}
	after := parseChains(out)
	after[postrouting] = []rule{rootRule(want.Settings)}
	if b.kind == backend.IPTablesNFT {
		if after[postrouting], err = nftRoots(table.Family, rootRule(want.Settings)); err != nil {
			return true, fmt.Errorf("read back the root rule: %w", err)
		}
	}
	if rest := plan(want.Settings, want.KeepChain, table, after); !rest.empty() {
		return true, fmt.Errorf("%w: %w: %s", backend.ErrUnavailable, errDropped, rest.lines[0])
	}
	return true, nil
}

// errDropped is a write that succeeded and did not last.
var errDropped = errors.New("the kernel does not hold the rules that were just written")

// ownChains lists the chains that a node with these settings has.
func ownChains(s policy.Settings) []string {
	if s.Sources == policy.SourcesAll {
		return []string{s.Chain}
	}
	return []string{s.Chain, s.PodsChain()}
}
