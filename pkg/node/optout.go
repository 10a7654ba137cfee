package node

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// optOutsDir holds a record for each attachment that is not to be masqueraded, or cannot be because its packets do not pass the
// node, so that people can be told of it. It is beside the attachments and not among them: a release that does not know of such
// records would give them rules.
const optOutsDir = "opted-out"

// decide applies what network and pod ask for, as far as the policy lets the pod ask.
func (n *Node) decide(a attachment.Attachment) (decided attachment.Attachment, optedOut bool, err error) {
	allowed := policy.AllowAnnotations
	if a.Asked.Annotated() { // otherwise the policy need not be read
		allowed = n.settings().PodAnnotations
	}
	a, optedOut, err = a.Decide(allowed)
	for _, name := range a.Refused {
		n.log.Warn("the pod's annotation is refused and has no effect: the key podAnnotations of the agent's config does not allow it",
			"annotation", name, "pod", a.Pod, "network", a.Network, "container", a.ContainerID)
	}
	return a, optedOut, err
}

// optOut is Detach for a pod that stays and is not to be masqueraded. It is recorded without a rule; that the record could not be
// written is no reason to keep the pod from starting, unless the policy is about the node's traffic, which the pod's would be taken for.
func (n *Node) optOut(ctx context.Context, a attachment.Attachment) error {
	a.SourceAddresses = nil
	a.Addresses = pods(a.Addresses)
	// Under the lock: an agent that begins to govern the node's traffic came before, so that its settings are read, or comes after and
	// finds the record.
	locked := false
	var recorded error
	var s policy.Settings
	record := func(attachment.Owner, bool) { locked, recorded, s = true, n.optOuts.Put(a), n.settings() }
	err := n.release(ctx, a.Owner, record)
	if !locked && err == nil {
		record(a.Owner, false)
	}
	if ruleset.NeedsOptedOut(s) && err == nil {
		if err = recorded; err == nil {
			err = n.putExempt(ctx, a)
		}
	}
	if err != nil {
		n.rollBack(a)
		return err
	}
	if recorded != nil {
		n.log.Warn("could not record that a pod opted out; status will not list it", "network", a.Network, "container", a.ContainerID, "error", recorded)
	}
	return nil
}

// putExempt makes the rules for the node's traffic pass over the addresses of an attachment that opted out.
func (n *Node) putExempt(ctx context.Context, a attachment.Attachment) error {
	release, err := n.exclusive(ctx)
	if err != nil {
		return err
	}
	defer release()
	b, decision, err := n.current()
	if errors.Is(err, ErrOtherBackend) {
		return err
	}
	want := n.exempt(decision, a)
	if len(want.Tables) == 0 {
		return nil
	}
	if err == nil && !decision.moving(want.Settings.Chain) {
		if err := b.Attach(ctx, want); !errors.Is(err, backend.ErrIncomplete) {
			return err
		}
	}
	return n.reconcileFor(ctx, n.policy(), a)
}

// exempt is the state of one attachment that opted out.
func (n *Node) exempt(d Decision, a attachment.Attachment) ruleset.State {
	p := n.withoutPrefixes(d)
	a.Addresses = pods(a.Addresses)
	return ruleset.Build(p, nil, ruleset.Node{OptedOut: []attachment.Attachment{a}}).Of(families(p.Settings, a)...)
}

// Exempt lists the attachments whose addresses the rules for the node's traffic must pass over; none where there are no such rules.
func (n *Node) Exempt(s policy.Settings) []attachment.Attachment {
	if !ruleset.NeedsOptedOut(s) {
		return nil
	}
	all, err := n.withoutRules(func(attachment.Attachment) bool { return true })
	if err != nil {
		n.log.Warn("skipping records of pods that opted out and cannot be read: their packets are taken for the node's", "error", err)
	}
	return all
}

// OptedOut lists the attachments that opted out and whose network namespace is not provably gone. It only reads.
func (n *Node) OptedOut() ([]attachment.Attachment, error) {
	return n.withoutRules(func(a attachment.Attachment) bool { return a.Bypass == "" })
}

func (n *Node) withoutRules(which func(attachment.Attachment) bool) ([]attachment.Attachment, error) {
	all, err := n.optOuts.List()
	var living []attachment.Attachment
	for _, a := range all {
		if which(a) && !a.NetNS.Gone() {
			living = append(living, a)
		}
	}
	return living, err
}

// forgetOptOut is for an attachment that goes, or that is masqueraded from now on.
func (n *Node) forgetOptOut(id attachment.ID) {
	if err := n.optOuts.Delete(id); err != nil {
		n.log.Warn("could not remove the record of a pod that opted out", "owner", id, "error", err)
	}
}

// forgetOptOuts removes the records of attachments that are dead, and returns how many those were.
func (n *Node) forgetOptOuts(dead func(attachment.Attachment) bool) (forgotten int) {
	all, _ := n.optOuts.List() // one that cannot be read is in nobody's way
	for _, a := range all {
		if dead(a) {
			n.forgetOptOut(a.ID())
			forgotten++
		}
	}
	return forgotten
}

// endOptOut is for one attachment that goes: what the kernel has for it, and then its record.
func (n *Node) endOptOut(ctx context.Context, id attachment.ID) error {
	if _, err := n.optOuts.Get(id); err != nil || !ruleset.NeedsOptedOut(n.settings()) {
		n.forgetOptOut(id)
		return nil
	}
	release, err := n.exclusive(ctx)
	if err != nil {
		return err
	}
	defer release()
	return n.endOptOuts(ctx, func(a attachment.Attachment) bool { return a.ID() == id })
}

// endOptOuts is the same for all that are dead. An address that another one has, too, stays. Where there are rules for the node's
// traffic it needs the exclusive lock.
func (n *Node) endOptOuts(ctx context.Context, dead func(attachment.Attachment) bool) error {
	if s := n.settings(); ruleset.NeedsOptedOut(s) {
		var going, staying []netip.Addr
		all, _ := n.optOuts.List() // one that cannot be read is in nobody's way
		for _, a := range all {
			if dead(a) {
				going = append(going, a.Addresses...)
			} else {
				staying = append(staying, a.Addresses...)
			}
		}
		going = slices.DeleteFunc(going, func(addr netip.Addr) bool { return slices.Contains(staying, addr) })
		if err := n.releaseExempt(ctx, s, going); err != nil {
			return err
		}
	}
	n.forgetOptOuts(dead)
	return nil
}

// releaseExempt makes addresses the node's own again. A backend that is not there any more must not keep a pod from going; the agent
// finishes when it is back.
func (n *Node) releaseExempt(ctx context.Context, s policy.Settings, addresses []netip.Addr) error {
	if len(addresses) == 0 {
		return nil
	}
	for _, p := range n.places(ctx, s) {
		err := n.open(p.kind).Release(ctx, p.in(s), addresses)
		if errors.Is(err, backend.ErrUnavailable) {
			n.log.Warn("addresses of a pod that opted out stay in the rules until their backend is back", "backend", p.kind, "addresses", addresses, "error", err)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}
