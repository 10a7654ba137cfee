package node

import (
	"context"
	"errors"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
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
	if err := n.release(ctx, a.Owner, func(attachment.Owner, bool) {}); err != nil {
		return err
	}
	a.SourceAddresses = nil
	a.Addresses = pods(a.Addresses)
	err := n.optOuts.Put(a)
	if ruleset.NeedsOptedOut(n.settings()) {
		if err == nil {
			err = n.passOver(ctx, a)
		}
		if err != nil {
			n.rollBack(a)
		}
		return err
	}
	if err != nil {
		n.log.Warn("could not record that a pod opted out; status will not list it", "network", a.Network, "container", a.ContainerID, "error", err)
	}
	return nil
}

// passOver makes the rules for the node's traffic pass over the addresses of an attachment that opted out.
func (n *Node) passOver(ctx context.Context, a attachment.Attachment) error {
	release, err := n.exclusive(ctx)
	if err != nil {
		return err
	}
	defer release()
	if _, _, err := n.current(); errors.Is(err, ErrOtherBackend) {
		return err
	}
	return n.reconcileFor(ctx, n.policy(), a)
}

// passing lists the attachments whose addresses the rules for the node's traffic must pass over; none where there are no such rules.
func (n *Node) passing(s policy.Settings) []attachment.Attachment {
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

// endOptOut is endOptOuts for one attachment that goes.
func (n *Node) endOptOut(ctx context.Context, id attachment.ID) error {
	if !ruleset.NeedsOptedOut(n.settings()) {
		n.forgetOptOut(id)
		return nil
	}
	release, err := n.exclusive(ctx)
	if err != nil {
		return err
	}
	defer release()
	err = n.endOptOuts(ctx, func(a attachment.Attachment) bool { return a.ID() == id })
	n.forgetOptOut(id) // also one that could not be read
	return err
}

// endOptOuts removes the records of attachments that are dead, and then their addresses from the rules for the node's traffic. Where
// there are such rules it needs the exclusive lock.
func (n *Node) endOptOuts(ctx context.Context, dead func(attachment.Attachment) bool) error {
	if n.forgetOptOuts(dead) == 0 || !ruleset.NeedsOptedOut(n.settings()) {
		return nil
	}
	p := n.policy()
	_, err := n.reconcile(ctx, p, scope{families: p.Settings.Families(), keepChain: true})
	return err
}
