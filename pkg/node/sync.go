package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

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
	former, result, err := n.syncExclusive(ctx, p)
	if err == nil && former != nil && !former.Equal(p) {
		n.flushFlows(ctx, *former, p)
	}
	return result, err
}

// lockTime bounds a Sync's wait for the lock, which its holders need for milliseconds: who waits longer had better be told.
const lockTime = 10 * time.Second

// syncExclusive returns the policy that was in force before, too: old connections are ended without the lock, because there
// may be many and pods are waiting.
func (n *Node) syncExclusive(ctx context.Context, p policy.Policy) (*policy.Policy, Result, error) {
	lockCtx, cancel := context.WithTimeout(ctx, lockTime)
	defer cancel()
	release, err := n.exclusive(lockCtx)
	if err != nil {
		return nil, Result{}, err
	}
	defer release()
	if n.unchanged(ctx, p) {
		return nil, n.last.result, nil
	}
	former, seen := n.persisted(), n.glance(ctx, p)
	result, err := n.syncLocked(ctx, former, p)
	if err == nil {
		n.remember(seen, result)
	}
	return former, result, err
}

func (n *Node) syncLocked(ctx context.Context, former *policy.Policy, p policy.Policy) (Result, error) {
	if err := n.dropDead(ctx, p.Settings); err != nil {
		n.log("could not remove a dead attachment", "error", err)
	}
	known := n.adopt()
	result, err := n.reconcile(ctx, p, scope{families: p.Settings.Families(), known: known})
	if err != nil {
		return result, err
	}
	if err := n.takeOver(ctx, result.Backend, former, p.Settings); err != nil {
		return result, err
	}
	if former == nil || !former.Equal(p) || !n.policyThere() {
		if err := n.SavePolicy(p); err != nil {
			return result, fmt.Errorf("the rules are in place, but a reboot would lose them: %w", err)
		}
	}
	n.former = &p
	return result, nil
}

// persisted returns the policy before this Sync, nil where there was none. It is read once: nobody but the agent writes it.
func (n *Node) persisted() *policy.Policy {
	if n.former == nil {
		if p, err := n.LoadPolicy(); err == nil {
			n.former = &p
		}
	}
	return n.former
}

// dropDead detaches what provably lost its network namespace: a runtime can lose a DEL (containerd#12923).
func (n *Node) dropDead(ctx context.Context, s policy.Settings) error {
	records, _ := n.Records()
	var failures []error
	for _, a := range records {
		if a.NetNS.Gone() {
			n.log("dropping an attachment whose network namespace is gone", "network", a.Network, "container", a.ContainerID, "interface", a.IfName)
			failures = append(failures, n.detach(ctx, s, a.ID(), &a))
		}
	}
	return errors.Join(failures...)
}

// detach removes the rules of one owner and then its record. It needs the lock, in either form. record may be nil. A backend
// that is not there any more must not keep a pod from going; the record lets the agent finish.
func (n *Node) detach(ctx context.Context, s policy.Settings, id attachment.ID, record *attachment.Attachment) error {
	families := s.Families()
	var known []ruleset.Pod
	if record != nil {
		known = ruleset.Pods(*record)
		families = slices.DeleteFunc(families, func(f policy.Family) bool { return !record.Has(f) })
	}
	for _, kind := range n.inUse(s) {
		err := n.open(kind).Detach(ctx, s, families, id, known)
		if errors.Is(err, backend.ErrUnavailable) {
			n.log("the rules of an attachment stay until their backend is back; its record stays with them", "backend", kind, "owner", id, "error", err)
			return nil
		}
		if err != nil {
			return err
		}
	}
	return n.records.Delete(id)
}
