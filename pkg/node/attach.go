package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/registry"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// open returns the backend of a kind, nil for one that this build does not know.
func (n *Node) open(kind backend.Kind) backend.Backend { return registry.Open(n.host, kind) }

// Attach puts the attachment behind the policy, unless it opted out: its record first, then its rules. In the steady state that is
// one transaction under the shared lock. Whatever is not steady (first ADD after boot, a repeated ADD, a chain that was flushed) is
// reconciled under the exclusive lock. When a first ADD fails, its own traces are removed as far as possible.
func (n *Node) Attach(ctx context.Context, a attachment.Attachment) error {
	a, optedOut, err := n.decide(a)
	if err != nil {
		return err
	}
	if optedOut {
		return n.optOut(ctx, a)
	}
	r := askRoutes()
	a = n.governed(r, a)
	a.Bypass = n.bypassing(r, a)
	r.close()
	if len(a.Addresses) == 0 {
		n.log.Warn("the attachment has no address that can be masqueraded: it gets no rule", "network", a.Network, "container", a.ContainerID, "interface", a.IfName)
	}
	if a.Bypass != "" {
		n.log.Warn("no rule for this attachment: "+attachment.Bypassing(a.Bypass), "network", a.Network, "container", a.ContainerID, "interface", a.IfName)
		return n.optOut(ctx, a)
	}
	former, err := n.records.Get(a.ID())
	if !errors.Is(err, fs.ErrNotExist) || n.optOuts.Has(a.ID()) {
		return n.attachSlow(ctx, a, &former)
	}
	err = n.attachFast(ctx, a)
	if errors.Is(err, errSlow) {
		err = n.attachSlow(ctx, a, nil)
	}
	if err != nil {
		n.rollBack(a)
	}
	return err
}

// errSlow: the fast path does not apply.
var errSlow = errors.New("not the steady state")

func (n *Node) attachFast(ctx context.Context, a attachment.Attachment) error {
	release, err := n.shared(ctx)
	if err != nil {
		return err
	}
	defer release()
	b, decision, chosen := n.current()
	if errors.Is(chosen, ErrOtherBackend) {
		return chosen
	}
	if err := n.records.Put(a); err != nil {
		return err
	}
	n.unmarkDeleted(a.ID())
	want, err := n.single(decision, a)
	if err != nil {
		return err
	}
	if own := n.defaults.Chain; own != want.Settings.Chain && own != policy.DefaultChain {
		n.log.Warn("the entry's masqChain is not used: this node has another chain", "masqChain", own, "chain", want.Settings.Chain)
	}
	if chosen != nil || decision.moving(want.Settings.Chain) {
		return errSlow
	}
	err = b.Attach(ctx, want)
	if errors.Is(err, backend.ErrIncomplete) {
		return fmt.Errorf("%w: %w", errSlow, err)
	}
	return err
}

// attachSlow reconciles the families that the attachment has. former is what a repeated ADD replaces.
func (n *Node) attachSlow(ctx context.Context, a attachment.Attachment, former *attachment.Attachment) error {
	release, err := n.exclusive(ctx)
	if err != nil {
		return err
	}
	defer release()
	if _, _, err := n.current(); errors.Is(err, ErrOtherBackend) {
		return err
	}
	n.setAsideUnreadable()
	p := n.policy()
	if former != nil {
		if err := n.replace(ctx, p.Settings, former, a); err != nil {
			return err
		}
	}
	return n.reconcileFor(ctx, p, a)
}

// reconcileFor reconciles the families that an attachment has. It needs the exclusive lock.
func (n *Node) reconcileFor(ctx context.Context, p policy.Policy, a attachment.Attachment) error {
	families := families(p.Settings, a)
	if len(families) == 0 {
		return nil
	}
	_, err := n.reconcile(ctx, p, scope{families: families, keepChain: true})
	return err
}

// families are those that are on and that the attachment has.
func families(s policy.Settings, a attachment.Attachment) []policy.Family {
	return slices.DeleteFunc(s.Families(), func(f policy.Family) bool { return !a.Has(f) })
}

// replace puts a record in the place of its former one. Where the attachment lost a family, its rules go first: reconciling
// the families that it has would not look at those.
func (n *Node) replace(ctx context.Context, s policy.Settings, former *attachment.Attachment, a attachment.Attachment) error {
	lost := slices.ContainsFunc(s.Families(), func(f policy.Family) bool { return former.Has(f) && !a.Has(f) })
	if lost {
		if _, err := n.detach(ctx, s, a.ID(), former); err != nil {
			return err
		}
	}
	if err := n.records.Put(a); err != nil {
		return err
	}
	n.unmarkDeleted(a.ID())
	n.forgetOptOut(a.ID())
	return nil
}

// single is the state of one attachment. It needs no prefixes: what the shared chain says is between the agent and the kernel. The
// node's addresses are read for a pod alone that chose among them.
func (n *Node) single(d Decision, a attachment.Attachment) (ruleset.State, error) {
	p := n.withoutPrefixes(d)
	own, err := SourceAddresses(p, []attachment.Attachment{a})
	if err != nil {
		return ruleset.State{}, err
	}
	return ruleset.Build(p, []attachment.Attachment{a}, ruleset.Node{Addresses: own}).Of(families(p.Settings, a)...), nil
}

// withoutPrefixes is the policy as far as it matters for one attachment.
func (n *Node) withoutPrefixes(d Decision) policy.Policy {
	s := n.settings()
	s.RandomFully = s.RandomFully && d.Features.RandomFully
	return policy.Policy{Settings: s}
}

// rollBackTime bounds the clean-up after a failed ADD, whose own context may have run out.
const rollBackTime = 2 * time.Second

// rollBack removes what a failed ADD left. What it cannot remove, the DEL that the runtime sends next will.
func (n *Node) rollBack(a attachment.Attachment) {
	ctx, cancel := context.WithTimeout(context.Background(), rollBackTime)
	defer cancel()
	if err := n.Detach(ctx, a.Owner); err != nil {
		n.log.Warn("could not roll back a failed attachment", "error", err)
	}
}

// Detach removes exactly what the owner has: by record where there is one, and otherwise by looking for the owner in the
// rules. It fails only when something of the owner's is known to be there and could not be removed.
func (n *Node) Detach(ctx context.Context, owner attachment.Owner) error {
	optedOut := n.optOuts.Has(owner.ID())
	mark := func(owner attachment.Owner, recorded bool) { n.markDeleted(owner, recorded || optedOut) }
	err := n.release(ctx, owner, mark)
	if optedOut {
		err = errors.Join(err, n.endOptOut(ctx, owner.ID()))
	}
	return err
}

func (n *Node) release(ctx context.Context, owner attachment.Owner, mark func(owner attachment.Owner, recorded bool)) error {
	id := owner.ID()
	recorded := n.records.Has(id)
	release, err := n.shared(ctx)
	if err != nil {
		if recorded {
			return err
		}
		n.log.Warn("nothing on record for this attachment, and the lock cannot be had to look for its rules", "error", err)
		return nil
	}
	mark(owner, recorded)
	n.pruneDeleted(nil)
	var known *attachment.Attachment
	if record, err := n.records.Get(id); err == nil {
		known = &record
	}
	heirs, err := n.detach(ctx, n.settings(), id, known)
	release()
	return errors.Join(err, n.releaseHeirs(ctx, heirs))
}

// releaseHeirs removes what was left to attachments that have the same address and whose own DEL ran at the same time: that one
// saw the address with its former owner and left it alone. Under the exclusive lock it is over, and its record gone.
func (n *Node) releaseHeirs(ctx context.Context, heirs []attachment.ID) error {
	if len(heirs) == 0 {
		return nil
	}
	release, err := n.exclusive(ctx)
	if err != nil {
		return err
	}
	defer release()
	var failures []error
	for _, id := range heirs {
		if !n.records.Has(id) {
			_, err := n.detach(ctx, n.settings(), id, nil)
			failures = append(failures, err)
		}
	}
	return errors.Join(failures...)
}
