package node

import (
	"context"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
)

// optOutsDir holds a record for each attachment that is not to be masqueraded, or cannot be because its packets do not pass the
// node, so that people can be told of it. It is beside the attachments and not among them: a release that does not know of such
// records would give them rules.
const optOutsDir = "opted-out"

// OptOut is Detach for a pod that stays and is not to be masqueraded. It is recorded without a rule; that the record could not be
// written is no reason to keep the pod from starting.
func (n *Node) OptOut(ctx context.Context, a attachment.Attachment) error {
	if err := n.release(ctx, a.Owner, func(attachment.Owner, bool) {}); err != nil {
		return err
	}
	if err := n.optOuts.Put(a); err != nil {
		n.log.Warn("could not record that a pod opted out; status will not list it", "network", a.Network, "container", a.ContainerID, "error", err)
	}
	return nil
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

// forgetOptOuts removes the records of attachments that are dead.
func (n *Node) forgetOptOuts(dead func(attachment.Attachment) bool) {
	all, _ := n.optOuts.List() // one that cannot be read is in nobody's way
	for _, a := range all {
		if dead(a) {
			n.forgetOptOut(a.ID())
		}
	}
}
