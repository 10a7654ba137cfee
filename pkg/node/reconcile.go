package node

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// scope bounds one reconciliation.
type scope struct {
	families []policy.Family
	// keepChain leaves a shared chain that has rules as it is.
	keepChain bool
	// settle is the agent's first Sync, which also looks for chains that no record names.
	settle bool
	// former is the chain before, for a record that does not name it.
	former string
	// known are all attachments that the runtime knows of; nil where it was not asked.
	known map[attachment.ID]bool
}

// living keeps those pods without a record that may be alive. A rule is written after its record, unless the runtime's
// cache names its pod (adopt), so a rule without one lost it, or leaked; the runtime can tell which. Where it cannot be asked, the rule stays: a pod that loses its rule loses
// its connections, a leaked rule harms nobody.
func (s scope) living(unrecorded []ruleset.Pod) []ruleset.Pod {
	if s.known == nil {
		return unrecorded
	}
	return slices.DeleteFunc(unrecorded, func(p ruleset.Pod) bool { return !s.known[p.Owner] })
}

// reconcile turns policy, records and a reading of the kernel into the desired state of the given families, and applies it.
// Where the backend or the chain changes, every rule moves: the new place is complete before the former ones are emptied.
// It needs the exclusive lock.
func (n *Node) reconcile(ctx context.Context, p policy.Policy, sc scope) (Result, error) {
	result := Result{Chain: p.Settings.Chain, diff: n.diff}
	b, decision, fresh, err := n.choose(ctx, p.Settings, sc.families[0])
	if err != nil {
		return result, err
	}
	result.Backend = b.Kind()
	if n.keepCounts != nil {
		n.keepCounts(b)
	}
	if err := n.recordChain(ctx, &decision, p.Settings, sc); err != nil {
		return result, err
	}
	records, err := n.Records()
	if err != nil {
		n.log.Warn("skipping attachment records that cannot be read", "error", err)
	}
	if result.Addresses, err = SourceAddresses(p, records); err != nil {
		return result, err
	}
	var left []ruleset.Pod
	if decision.moving(p.Settings.Chain) {
		sc.families = p.Settings.Families()
		left = n.formerPods(ctx, decision, p.Settings)
	}
	p.Settings.RandomFully = p.Settings.RandomFully && decision.Features.RandomFully
	on := ruleset.Node{Addresses: result.Addresses, OptedOut: n.Exempt(p.Settings)}
	stateOf := func(p policy.Policy, got backend.Observed) ruleset.State {
		on.Unrecorded = sc.living(ruleset.Unrecorded(append(got.Pods(), left...), records))
		state := ruleset.Build(p, records, on)
		state.KeepChain = sc.keepChain
		return state.Of(sc.families...)
	}
	desired := func(got backend.Observed) ruleset.State { return stateOf(p, got) }
	few := p // pods and groups do not depend on the prefixes, of which there may be a hundred thousand
	few.NonMasquerade, few.Masquerade = nil, nil
	counted := stateOf(few, backend.Observed{})
	result.Pods, result.Egress = counted.Count(), counted.Egress()
	err = result.apply(ctx, b, p.Settings, sc.families, desired, fresh)
	if err == nil && decision.moving(p.Settings.Chain) {
		n.seen = nil
		err = n.leaveFormer(ctx, decision, p.Settings)
	}
	return result, err
}

// apply observes and applies. On a fresh node it first assumes that nothing is there, which is usually right, cannot harm
// when it is wrong, and saves the reading. A refused write is tried once more on a new reading: a program that does not
// take the node's lock may have changed the rules in between.
func (r *Result) apply(ctx context.Context, b backend.Backend, s policy.Settings, families []policy.Family,
	desired func(backend.Observed) ruleset.State, fresh bool,
) error {
	if fresh {
		nothing := backend.Observed{}
		if err := r.write(ctx, b, nothing, desired(nothing)); err == nil {
			return nil
		}
	}
	var err error
	for range 2 {
		began := time.Now()
		got, observeErr := b.Observe(ctx, s, families...)
		r.Reading += time.Since(began)
		if observeErr != nil {
			return observeErr
		}
		err = r.write(ctx, b, got, desired(got))
		if err == nil || errors.Is(err, backend.ErrUnavailable) || errors.Is(err, backend.ErrBusy) || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// write applies the difference, and then lists it: what is missing is put back first.
func (r *Result) write(ctx context.Context, b backend.Backend, got backend.Observed, want ruleset.State) error {
	changed, err := b.Apply(ctx, got, want)
	r.Changed, r.Drift = r.Changed || changed, nil
	if err != nil {
		r.Drift = r.diff(b, got, want)
	}
	if !changed {
		return err
	}
	r.Repaired = r.diff(b, got, want)
	return err
}
