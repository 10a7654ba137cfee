package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

var bothFamilies = []policy.Family{policy.IPv4, policy.IPv6}

// recordChain makes the chain of the settings the one in use and the others former ones, before any rule is written: whoever is
// killed after that leaves a record that names every place where rules may be.
func (n *Node) recordChain(ctx context.Context, d *Decision, s policy.Settings, sc scope) error {
	var former []string
	if d.Chain == "" {
		former = append(former, sc.former)
	}
	n.seen = nil
	if sc.settle {
		n.seen = map[policy.Family][]place{}
		for _, family := range bothFamilies {
			n.seen[family] = n.found(ctx, s, family)
			for _, p := range n.seen[family] {
				if p.kind == d.Kind {
					former = append(former, p.chain)
				}
			}
		}
	}
	place := d.RuntimeDir
	if n.runtime != nil && sc.known != nil {
		d.RuntimeDir = n.runtime.Place()
	}
	if moved := d.moveTo(s.Chain, former...); !moved && d.RuntimeDir == place {
		return nil
	}
	if len(d.FormerChains) > 0 {
		n.log.Info("moving every rule to another chain", "chain", d.Chain, "former", d.FormerChains)
	}
	return n.saveDecision(*d)
}

// formerPlaces are the recorded places but the one in use.
func (d Decision) formerPlaces(s policy.Settings) []place {
	return slices.DeleteFunc(d.recorded(s), func(p place) bool { return p == place{d.Kind, s.Chain} })
}

// formerPods are the pods that the former places hold: their rules move too where their record is lost.
func (n *Node) formerPods(ctx context.Context, d Decision, s policy.Settings) []ruleset.Pod {
	var pods []ruleset.Pod
	for _, p := range d.formerPlaces(s) {
		got, err := n.open(p.kind).Observe(ctx, p.in(s), s.Families()...)
		if err != nil {
			n.log.Warn("cannot read the pods' rules in a former chain: pods without a record lose theirs", "backend", p.kind, "chain", p.chain, "error", err)
		}
		pods = append(pods, got.Pods()...)
	}
	return pods
}

// leaveFormer empties the former places, now that the one in use has everything.
func (n *Node) leaveFormer(ctx context.Context, d Decision, s policy.Settings) error {
	for _, p := range d.formerPlaces(s) {
		for _, family := range bothFamilies {
			if err := n.remove(ctx, p.kind, p.in(s), family); err != nil {
				return fmt.Errorf("remove the former chain %s of %s: %w", p.chain, p.kind, err)
			}
		}
	}
	d.Former, d.FormerChains = "", nil
	return n.saveDecision(d)
}

// takeOver removes what others left in kinds of rules that are not in use, and in a family that is off, now that everything
// stands in its new place. The former settings may have had a family on; other agents are looked for once per process.
func (n *Node) takeOver(ctx context.Context, kind backend.Kind, former *policy.Policy, now policy.Settings) error {
	off := slices.DeleteFunc(slices.Clone(bothFamilies), func(f policy.Family) bool { return slices.Contains(now.Families(), f) })
	if former != nil {
		for _, family := range off {
			if slices.Contains(former.Settings.Families(), family) {
				if err := n.remove(ctx, kind, now, family); err != nil {
					return fmt.Errorf("remove the rules of a family that is off now: %w", err)
				}
			}
		}
	}
	if n.tookOver {
		return nil
	}
	for _, family := range bothFamilies {
		for _, p := range n.foundBefore(ctx, now, family) {
			if p.kind == kind && slices.Contains(now.Families(), family) {
				continue
			}
			if err := n.remove(ctx, p.kind, p.in(now), family); err != nil {
				return fmt.Errorf("remove %s rules of another agent: %w", p.kind, err)
			}
			n.log.Info("removed the rules of another agent", "backend", p.kind, "chain", p.chain, "family", family)
		}
	}
	n.tookOver, n.seen = true, nil
	return nil
}

// foundBefore is what was found before this Sync wrote anything, unless it emptied former places meanwhile: of what is not in use
// nothing else has changed.
func (n *Node) foundBefore(ctx context.Context, s policy.Settings, family policy.Family) []place {
	if n.seen == nil {
		return n.found(ctx, s, family)
	}
	return n.seen[family]
}

// remove empties one kind of rules on the way to another state. Other software's rule that keeps a chain alive is named in the
// log and does not hold up the rest: the rules managed by ip-masq are out of the chain.
func (n *Node) remove(ctx context.Context, kind backend.Kind, s policy.Settings, family policy.Family) error {
	b := n.open(kind)
	if b == nil {
		return nil
	}
	err := b.Remove(ctx, s, family)
	var kept *backend.Kept
	switch {
	case errors.As(err, &kept):
		n.log.Warn("a former chain stays because other software's rules need it", "reason", kept)
		return nil
	case errors.Is(err, backend.ErrUnavailable):
		return nil
	}
	return err
}
