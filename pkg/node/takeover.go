package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/registry"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// takeOver removes what others before us left, now that everything stands in its new place: the chain of former settings, and
// our chain with an older agent's jump in a kind of rules that is not ours, or in IPv6 while that is off.
func (n *Node) takeOver(ctx context.Context, kind backend.Kind, former *policy.Policy, now policy.Settings) error {
	if former != nil {
		if err := n.removeFormer(ctx, former.Settings, now); err != nil {
			return err
		}
	}
	if n.tookOver {
		return nil
	}
	for _, family := range []policy.Family{policy.IPv4, policy.IPv6} {
		for _, other := range registry.Standing(n.host, now, family) {
			if other == kind && slices.Contains(now.Families(), family) {
				continue
			}
			if err := n.remove(ctx, other, now, family); err != nil {
				return fmt.Errorf("remove %s rules of another agent: %w", other, err)
			}
			n.log.Info("removed the rules of another agent", "backend", other, "family", family)
		}
	}
	n.tookOver = true
	return nil
}

// removeFormer looks into every kind of rules: the backend may have changed together with the settings.
func (n *Node) removeFormer(ctx context.Context, former, now policy.Settings) error {
	for _, family := range former.Families() {
		if former.Chain == now.Chain && slices.Contains(now.Families(), family) {
			continue
		}
		for _, kind := range registry.Standing(n.host, former, family) {
			if err := n.remove(ctx, kind, former, family); err != nil {
				return fmt.Errorf("remove the rules of the former settings: %w", err)
			}
		}
	}
	return nil
}

// leaveFormerBackend empties the backend that was in use before a switch, now that the new one has everything.
func (n *Node) leaveFormerBackend(ctx context.Context, d Decision, s policy.Settings) error {
	for _, family := range []policy.Family{policy.IPv4, policy.IPv6} {
		if err := n.remove(ctx, d.Former, s, family); err != nil {
			return fmt.Errorf("remove the rules of the former backend %s: %w", d.Former, err)
		}
	}
	d.Former = ""
	return n.saveDecision(d)
}

// remove empties one kind of rules on the way to another state. A stranger's rule that keeps a chain of ours alive is named in
// the log and does not hold up the rest: ours is out of the chain.
func (n *Node) remove(ctx context.Context, kind backend.Kind, s policy.Settings, family policy.Family) error {
	b := n.open(kind)
	if b == nil {
		return nil
	}
	err := b.Remove(ctx, s, family)
	var kept *backend.Kept
	switch {
	case errors.As(err, &kept):
		n.log.Warn("a former chain stays", "reason", kept)
		return nil
	case errors.Is(err, backend.ErrUnavailable):
		return nil
	}
	return err
}
