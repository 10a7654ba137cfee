package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// Result is what a Sync did.
type Result struct {
	Backend backend.Kind
	Changed bool // something was written
	Pods    int  // addresses whose traffic the policy governs
}

// Sync makes the kernel equal the policy and the attachments, and persists the policy. It is the agent's one way to change
// anything, whatever triggered it.
func (n *Node) Sync(ctx context.Context, p policy.Policy) (Result, error) {
	release, err := n.exclusive(ctx)
	if err != nil {
		return Result{}, err
	}
	defer release()
	if n.unchanged(ctx, p) {
		return n.last.result, nil
	}
	seen := n.glance(ctx, p)
	result, err := n.syncLocked(ctx, p)
	if err == nil {
		n.remember(seen, result)
	}
	return result, err
}

func (n *Node) syncLocked(ctx context.Context, p policy.Policy) (Result, error) {
	former, formerErr := n.LoadPolicy()
	if err := n.dropDead(ctx, p.Settings); err != nil {
		n.log("could not remove a dead attachment", "error", err)
	}
	result, err := n.reconcile(ctx, p, false, p.Settings.Families()...)
	if err != nil {
		return result, err
	}
	if formerErr == nil {
		if err := n.removeFormer(ctx, result.Backend, former.Settings, p.Settings); err != nil {
			return result, err
		}
	}
	if err := n.SavePolicy(p); err != nil {
		return result, fmt.Errorf("the rules are in place, but a reboot would lose them: %w", err)
	}
	return result, nil
}

// reconcile turns policy, records and a reading of the kernel into the desired state of the given families, and applies it.
// It needs the exclusive lock. With keepChain a shared chain that has rules stays as it is.
func (n *Node) reconcile(ctx context.Context, p policy.Policy, keepChain bool, families ...policy.Family) (Result, error) {
	b, decision, fresh, err := n.choose(ctx, p.Settings, families[0])
	if err != nil {
		return Result{}, err
	}
	p.Settings.RandomFully = p.Settings.RandomFully && decision.Features.RandomFully
	records, err := n.records.List()
	if err != nil {
		n.log("skipping attachment records that cannot be read", "error", err)
	}
	desired := func(got backend.Observed) ruleset.State {
		state := ruleset.Build(p, records, ruleset.Unrecorded(got.Pods(), records))
		state.KeepChain = keepChain
		return state.Of(families...)
	}
	result := Result{Backend: b.Kind(), Pods: desired(backend.Observed{}).Count()}
	result.Changed, err = apply(ctx, b, p.Settings, families, desired, fresh)
	if err == nil && decision.Former != "" {
		err = n.leaveFormerBackend(ctx, decision, p.Settings)
	}
	return result, err
}

// apply observes and applies. On a fresh node it first assumes that nothing is there, which is usually right, cannot harm
// when it is wrong, and saves the reading. A refused write is tried once more on a new reading: somebody outside our lock may
// have changed the rules in between.
func apply(ctx context.Context, b backend.Backend, s policy.Settings, families []policy.Family,
	desired func(backend.Observed) ruleset.State, fresh bool,
) (changed bool, err error) {
	if fresh {
		if changed, err = b.Apply(ctx, backend.Observed{}, desired(backend.Observed{})); err == nil {
			return changed, nil
		}
	}
	for range 2 {
		var got backend.Observed
		if got, err = b.Observe(ctx, s, families...); err != nil {
			return false, err
		}
		changed, err = b.Apply(ctx, got, desired(got))
		if err == nil || errors.Is(err, backend.ErrUnavailable) || errors.Is(err, backend.ErrBusy) || ctx.Err() != nil {
			return changed, err
		}
	}
	return changed, err
}

// removeFormer takes out what the former settings put in and the new ones do not name: another chain, or IPv6 once it is off.
func (n *Node) removeFormer(ctx context.Context, kind backend.Kind, former, now policy.Settings) error {
	b := open(kind)
	for _, family := range former.Families() {
		if former.Chain == now.Chain && slices.Contains(now.Families(), family) {
			continue
		}
		if err := b.Remove(ctx, former, family); err != nil && !errors.Is(err, backend.ErrUnavailable) {
			return fmt.Errorf("remove the rules of the former settings: %w", err)
		}
	}
	return nil
}

// leaveFormerBackend empties the backend that was in use before a switch, now that the new one has everything.
func (n *Node) leaveFormerBackend(ctx context.Context, d Decision, s policy.Settings) error {
	if b := open(d.Former); b != nil {
		for _, family := range []policy.Family{policy.IPv4, policy.IPv6} {
			if err := b.Remove(ctx, s, family); err != nil && !errors.Is(err, backend.ErrUnavailable) {
				return fmt.Errorf("remove the rules of the former backend %s: %w", d.Former, err)
			}
		}
	}
	d.Former = ""
	return n.saveDecision(d)
}

// dropDead detaches what provably lost its network namespace: a runtime can lose a DEL (containerd#12923).
func (n *Node) dropDead(ctx context.Context, s policy.Settings) error {
	records, _ := n.records.List()
	var failures []error
	for _, a := range records {
		if a.NetNS.Gone() {
			n.log("dropping an attachment whose network namespace is gone", "network", a.Network, "container", a.ContainerID, "interface", a.IfName)
			failures = append(failures, n.detach(ctx, s, a.ID(), &a))
		}
	}
	return errors.Join(failures...)
}

// detach removes the rules of one owner and then its record. It needs the lock, in either form. record may be nil.
func (n *Node) detach(ctx context.Context, s policy.Settings, id attachment.ID, record *attachment.Attachment) error {
	families := s.Families()
	var known []ruleset.Pod
	if record != nil {
		known = ruleset.Pods(*record)
		families = slices.DeleteFunc(families, func(f policy.Family) bool { return !record.Has(f) })
	}
	for _, kind := range n.inUse(s) {
		if err := open(kind).Detach(ctx, s, families, id, known); err != nil {
			return err
		}
	}
	return n.records.Delete(id)
}
