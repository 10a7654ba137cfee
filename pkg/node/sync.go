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
	"github.com/ip-masq/ip-masq-cni/pkg/backend/registry"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// Result is what a Sync did.
type Result struct {
	Backend backend.Kind
	Chain   string
	Changed bool // something was written
	Pods    int  // addresses whose traffic the policy governs
	// Repaired says what differed from the desired state before it was written, object by object.
	Repaired []backend.Drift
	// Drift is what differed when writing failed; nil where nothing was written, because the kernel could not be read either.
	Drift []backend.Drift
	// PolicyChanged: another policy, or none, was in force before, so that no other program caused the difference.
	PolicyChanged bool
	Adopted       int // pods that the runtime knows and that were not on record, as far as rules change for them
	Dropped       int // pods whose network namespace is gone, as far as there were rules for them
	// Reading is how long reading the kernel took, without writing and without waiting for the lock.
	Reading time.Duration
	// Addresses are those of the node's own that the policy may give to connections, and Egress is what that makes of its groups.
	Addresses []netip.Addr
	Egress    []ruleset.Egress
	// Former is what decided before, nil where nothing did or it is the same: what EndFlows asks for.
	Former *Rules
	// New are the addresses that came behind the policy since the last Sync of this process, all at its first one: EndFlows asks
	// for them too.
	New []netip.Addr

	diff Diff
}

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
		n.pruneKnown()
		return n.last.result, nil
	}
	seen := n.snapshot(ctx, p)
	defer n.alone()()
	result, err := n.syncLocked(ctx, p)
	if err == nil {
		n.remember(seen, result)
	}
	return result, err
}

// lockTime bounds a Sync's wait for the lock, which its holders need for milliseconds: who waits longer should know.
const lockTime = 10 * time.Second

func (n *Node) syncLocked(ctx context.Context, p policy.Policy) (Result, error) {
	former := n.readPersisted()
	changes := former != nil && (!former.Equal(p) || n.addressesChanged(p))
	if changes {
		n.beginFlows()
	}
	n.setAsideUnreadable()
	ended := n.forgetOptOuts(func(a attachment.Attachment) bool { return a.NetNS.Gone() })
	dropped, err := n.dropDead(ctx, p.Settings)
	if ruleset.NeedsOptedOut(p.Settings) {
		dropped += ended
	}
	if err != nil {
		n.log.Warn("could not remove an attachment whose network namespace is gone", "error", err)
	}
	known, found := n.adopt(p.Settings)
	n.runtimeKnown = known
	n.pruneKnown()
	sc := scope{families: p.Settings.Families(), known: known, settle: !n.tookOver}
	if former != nil {
		sc.former = former.Settings.Chain
	}
	result, err := n.reconcile(ctx, p, sc)
	result.Adopted, result.Dropped = n.record(found), dropped
	result.PolicyChanged = former == nil || !former.Equal(p)
	if err != nil {
		return result, err
	}
	if err := n.takeOver(ctx, result.Backend, former, p.Settings); err != nil {
		return result, err
	}
	if result.PolicyChanged || !slices.Equal(former.Flags, p.Flags) {
		if err := n.SavePolicy(p); err != nil {
			return result, fmt.Errorf("the rules are in place, but a reboot would lose them: %w", err)
		}
	}
	result.Former = n.formerRules(former, p, result.Addresses, changes)
	result.New = n.newAddresses()
	return result, nil
}

// dropDead detaches what provably lost its network namespace: a runtime can lose a DEL (containerd#12923).
func (n *Node) dropDead(ctx context.Context, s policy.Settings) (dropped int, err error) {
	records, _ := n.Records()
	var failures []error
	for _, a := range records {
		if a.NetNS.Gone() {
			n.log.Info("removing an attachment whose network namespace is gone", "network", a.Network, "container", a.ContainerID, "interface", a.IfName)
			_, err := n.detach(ctx, s, a.ID(), &a)
			failures = append(failures, err)
			dropped++
		}
	}
	return dropped, errors.Join(failures...)
}

// detach removes the rules of one owner and then its record. It needs the lock, in either form. record may be nil. A backend
// that is not there any more must not keep a pod from going; the record lets the agent finish. It returns who else has one of
// the addresses and keeps it.
func (n *Node) detach(ctx context.Context, s policy.Settings, id attachment.ID, record *attachment.Attachment) (heirs []attachment.ID, err error) {
	families := bothFamilies
	var known []ruleset.Pod
	if record != nil {
		known = ruleset.Pods(*record)
		families = slices.DeleteFunc(slices.Clone(families), func(f policy.Family) bool { return !record.Has(f) })
	}
	others := func(address netip.Addr) []ruleset.Pod {
		pods := n.othersOnRecord(s, address, id)
		for _, pod := range pods {
			heirs = append(heirs, pod.Owner)
		}
		return pods
	}
	places := n.places(ctx, s)
	for _, p := range places {
		in := families
		if len(places) > 1 { // while rules move, a chain may not be there yet, or no more
			in = slices.DeleteFunc(slices.Clone(in), func(f policy.Family) bool { return !slices.Contains(registry.Standing(n.host, p.in(s), f), p.kind) })
		}
		if len(in) == 0 {
			continue
		}
		err := n.open(p.kind).Detach(ctx, p.in(s), in, id, known, others)
		if errors.Is(err, backend.ErrUnavailable) {
			n.log.Warn("the rules of an attachment stay until their backend is back; its record stays with them", "backend", p.kind, "owner", id, "error", err)
			return heirs, nil
		}
		if err != nil {
			return heirs, err
		}
	}
	defer n.forgetRecords()
	return heirs, n.records.Delete(id)
}

// othersOnRecord returns the pods on record that have an address and another owner.
func (n *Node) othersOnRecord(s policy.Settings, address netip.Addr, id attachment.ID) []ruleset.Pod {
	records, _ := n.Records() // one that cannot be read names no address
	records = slices.DeleteFunc(slices.Clone(records), func(a attachment.Attachment) bool { return a.ID() == id || !slices.Contains(a.Addresses, address) })
	own, err := SourceAddresses(policy.Policy{Settings: s}, records)
	if err != nil {
		n.log.Warn("cannot read the node's addresses: a pod that chose one is masqueraded until the next sync", "error", err)
	}
	pods := ruleset.Node{Addresses: own}.Pods(s, records...)
	return slices.DeleteFunc(pods, func(p ruleset.Pod) bool { return p.Address != address })
}
