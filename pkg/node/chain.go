package node

import (
	"context"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/registry"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// moving reports whether rules stand, or may stand, elsewhere than in the recorded backend's chain of this name.
func (d Decision) moving(chain string) bool {
	return d.Former != "" || len(d.FormerChains) > 0 || (d.Chain != "" && d.Chain != chain)
}

// moveTo makes chain the one in use, and what was in use a former one. It reports whether anything changed.
func (d *Decision) moveTo(chain string, former ...string) bool {
	before := Decision{Chain: d.Chain, FormerChains: d.FormerChains}
	former = append(slices.Clone(d.FormerChains), append(former, d.Chain)...)
	slices.Sort(former)
	d.FormerChains = slices.DeleteFunc(slices.Compact(former), func(c string) bool { return c == "" || c == chain })
	d.Chain = chain
	return d.Chain != before.Chain || !slices.Equal(d.FormerChains, before.FormerChains)
}

// place is where rules managed by ip-masq may stand.
type place struct {
	kind  backend.Kind
	chain string
}

// found lists the chains that stand in a family without any record: by the name that the settings give, and by the root rules
// that lead to them.
func (n *Node) found(ctx context.Context, s policy.Settings, family policy.Family) []place {
	standing := registry.Standing(n.host, s, family)
	var places []place
	for _, kind := range registry.Auto.Kinds() {
		chains, err := n.open(kind).Chains(ctx, family)
		if err != nil {
			n.log.Debug("cannot look for root rules", "backend", kind, "family", family, "error", err)
		}
		// The nftables table stands whatever its chains are called.
		named := kind != backend.NFTables || len(chains) == 0
		if named && slices.Contains(standing, kind) && !slices.Contains(chains, s.Chain) {
			chains = append(chains, s.Chain)
		}
		for _, chain := range chains {
			places = append(places, place{kind, chain})
		}
	}
	return places
}

// recorded lists the places that the record names, and those of the settings; what is there no more is no harm.
func (d Decision) recorded(s policy.Settings) []place {
	chains := append([]string{s.Chain}, d.FormerChains...)
	if d.Chain != "" {
		chains = append(chains, d.Chain)
	}
	slices.Sort(chains)
	chains = slices.Compact(chains)
	var places []place
	for _, kind := range []backend.Kind{d.Kind, d.Former} {
		if registry.Known(kind) {
			for _, chain := range chains {
				places = append(places, place{kind, chain})
			}
		}
	}
	return places
}

// places lists where rules of an attachment may stand: by the record, or where that is lost, by what is found.
func (n *Node) places(ctx context.Context, s policy.Settings) []place {
	if d, ok := n.Decision(); ok && d.Kind != "" {
		return d.recorded(s)
	}
	places := n.found(ctx, s, policy.IPv4)
	for _, p := range n.found(ctx, s, policy.IPv6) {
		if !slices.Contains(places, p) {
			places = append(places, p)
		}
	}
	return places
}

// in is the settings with another chain.
func (p place) in(s policy.Settings) policy.Settings {
	s.Chain = p.chain
	return s
}
