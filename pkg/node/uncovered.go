package node

import (
	"fmt"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
)

// Uncovered lists the attachments that the runtime knows and that are not on record although the next Sync would adopt them. It
// reads only, and may be called beside a Sync. The error says that nothing is known: fs.ErrNotExist where there is no cache.
func (n *Node) Uncovered() ([]attachment.Attachment, error) {
	if n.runtime == nil {
		return nil, nil
	}
	attachments, _, err := n.runtime.Attachments()
	if err != nil {
		return nil, err
	}
	allowed := n.settings().PodAnnotations
	return n.Unrecorded(slices.DeleteFunc(slices.Clone(attachments), func(a attachment.Attachment) bool {
		_, optedOut, _ := a.Decide(allowed)
		return optedOut
	})), nil
}

// Unrecorded keeps those of the runtime's attachments that live, have an address that can be a pod's, and are not on record.
func (n *Node) Unrecorded(attachments []attachment.Attachment) []attachment.Attachment {
	known, r := n.decidedOn(), askRoutes()
	defer r.close()
	return slices.DeleteFunc(slices.Clone(attachments), func(a attachment.Attachment) bool {
		return !known.adoptable(a) || !slices.ContainsFunc(a.Addresses, r.canBePods)
	})
}

// decided are the attachments of which something is on record: that they are behind the policy, that they opted out or cannot be
// masqueraded, or that they were deleted. Listing the directories takes less than looking for each attachment.
type decided map[attachment.ID]bool

func (n *Node) decidedOn() decided {
	all := decided{}
	onRecord, _ := n.records.IDs()
	for _, id := range append(onRecord, n.deleted()...) {
		all[id] = true
	}
	optedOut, _ := n.optOuts.List() // one that cannot be read says nothing
	for _, a := range optedOut {
		all[a.ID()] = true
	}
	return all
}

// adoptable reports whether a pod that the runtime knows lives and is not on record: what was decided at its ADD holds until the
// next.
func (d decided) adoptable(a attachment.Attachment) bool {
	return !d[a.ID()] && a.NetNS.Path != "" && a.NetNS.Alive()
}

// PodsStamp changes whenever Attached, OptedOut or Uncovered may count another number, but for namespaces that go. It may be called
// beside a Sync.
func (n *Node) PodsStamp() string {
	return fmt.Sprint(n.recordsChanged().UnixNano(), changed(n.optOuts.Dir).UnixNano(), n.runtimeStamp())
}
