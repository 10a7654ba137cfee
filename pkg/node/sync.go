package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
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
	Chain   string
	Changed bool // something was written
	Pods    int  // addresses whose traffic the policy governs
	// Repaired says what differed from the desired state before it was written, one line per object in the backend's words; after
	// maxRepaired lines the last one counts the rest.
	Repaired []string
	// PolicyChanged: another policy, or none, was in force before, so that what differed was nobody's damage.
	PolicyChanged bool
	Adopted       int // pods that the runtime knows and that were not on record
	Dropped       int // pods whose network namespace is gone
	// Reading is how long reading the kernel took, without writing and without waiting for the lock.
	Reading time.Duration
	// Former is the policy that was in force before, nil where there was none or it is the same: what EndFlows asks for.
	Former *policy.Policy
}

// maxRepaired bounds Result.Repaired: a table of many prefixes that somebody deleted differs in all of them.
const maxRepaired = 20

// Sync makes the kernel equal the policy and the attachments, and persists the policy. It is the agent's one way to change
// anything, whatever triggered it. With an error the Result says what was done until then.
func (n *Node) Sync(ctx context.Context, p policy.Policy) (Result, error) {
	lockCtx, cancel := context.WithTimeout(ctx, lockTime)
	defer cancel()
	release, err := n.exclusive(lockCtx)
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

// lockTime bounds a Sync's wait for the lock, which its holders need for milliseconds: who waits longer had better be told.
const lockTime = 10 * time.Second

func (n *Node) syncLocked(ctx context.Context, p policy.Policy) (Result, error) {
	former := n.readPersisted()
	if former != nil && !former.Equal(p) {
		n.beginFlows()
	}
	dropped, err := n.dropDead(ctx, p.Settings)
	if err != nil {
		n.log.Warn("could not remove an attachment whose network namespace is gone", "error", err)
	}
	known, adopted := n.adopt()
	result, err := n.reconcile(ctx, p, scope{families: p.Settings.Families(), known: known})
	result.Adopted, result.Dropped = adopted, dropped
	result.PolicyChanged = former == nil || !former.Equal(p)
	if result.PolicyChanged {
		result.Former = former
	}
	if err != nil {
		return result, err
	}
	if err := n.takeOver(ctx, result.Backend, former, p.Settings); err != nil {
		return result, err
	}
	if result.PolicyChanged {
		if err := n.SavePolicy(p); err != nil {
			return result, fmt.Errorf("the rules are in place, but a reboot would lose them: %w", err)
		}
	}
	return result, nil
}

// dropDead detaches what provably lost its network namespace: a runtime can lose a DEL (containerd#12923).
func (n *Node) dropDead(ctx context.Context, s policy.Settings) (dropped int, err error) {
	records, _ := n.Records()
	var failures []error
	for _, a := range records {
		if a.NetNS.Gone() {
			n.log.Info("removing an attachment whose network namespace is gone", "network", a.Network, "container", a.ContainerID, "interface", a.IfName)
			failures = append(failures, n.detach(ctx, s, a.ID(), &a))
			dropped++
		}
	}
	return dropped, errors.Join(failures...)
}

// detach removes the record of one owner and then its rules. It needs the lock, in either form. record may be nil. The record
// goes first: of two DELs at once whose pods share an address, the one that looks at the records last finds neither, and the
// address goes. Where a backend fails the record comes back, so that the next DEL, or the agent, finishes. A backend that is
// not there any more must not keep a pod from going.
func (n *Node) detach(ctx context.Context, s policy.Settings, id attachment.ID, record *attachment.Attachment) error {
	families := []policy.Family{policy.IPv4, policy.IPv6}
	var known []ruleset.Pod
	if record != nil {
		known = ruleset.Pods(*record)
		families = slices.DeleteFunc(families, func(f policy.Family) bool { return !record.Has(f) })
	}
	if err := n.records.Delete(id); err != nil {
		return err
	}
	for _, kind := range n.inUse(s) {
		err := n.open(kind).Detach(ctx, s, families, id, known, n.onRecord)
		if err == nil {
			continue
		}
		if record != nil {
			err = errors.Join(err, n.records.Put(*record))
		}
		if errors.Is(err, backend.ErrUnavailable) {
			n.log.Warn("the rules of an attachment stay until their backend is back; its record stays with them", "backend", kind, "owner", id, "error", err)
			return nil
		}
		return err
	}
	return nil
}

// onRecord returns the pods on record that have an address.
func (n *Node) onRecord(address netip.Addr) []ruleset.Pod {
	records, _ := n.Records() // one that cannot be read names no address
	return slices.DeleteFunc(ruleset.Pods(records...), func(p ruleset.Pod) bool { return p.Address != address })
}
