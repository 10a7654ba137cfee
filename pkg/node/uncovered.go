package node

import (
	"fmt"
	"net/netip"
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
	return slices.DeleteFunc(slices.Clone(attachments), func(a attachment.Attachment) bool {
		return !n.adoptable(a) || !slices.ContainsFunc(a.Addresses, canBePods)
	})
}

// adoptable reports whether a pod that the runtime knows lives and is not on record, be it as one that opted out or cannot be
// masqueraded: what was decided at its ADD holds until the next.
func (n *Node) adoptable(a attachment.Attachment) bool {
	id := a.ID()
	if _, err := n.optOuts.Get(id); err == nil {
		return false
	}
	return !n.records.Has(id) && !n.isDeleted(id) && a.NetNS.Path != "" && a.NetNS.Alive()
}

// canBePods is what governed asks of an address.
func canBePods(addr netip.Addr) bool { return !addr.IsUnspecified() && !isLocal(addr) }

// pods keeps those addresses that can be a pod's.
func pods(addresses []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(addresses), func(addr netip.Addr) bool { return !canBePods(addr) })
}

// PodsStamp changes whenever Attached, OptedOut or Uncovered may count another number, but for namespaces that go. It may be called
// beside a Sync.
func (n *Node) PodsStamp() string {
	return fmt.Sprint(n.recordsChanged().UnixNano(), changed(n.optOuts.Dir).UnixNano(), n.runtimeStamp())
}
