package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// resolve finds the address of a pod that is named, and the name of one whose address is given.
func (n Node) resolve(q *Question) error {
	if q.Source.IsValid() {
		q.Pod = n.named(q.Source)
		return nil
	}
	var addresses []netip.Addr
	known := false
	for _, a := range n.everybody() {
		if a.Pod != q.Pod {
			continue
		}
		known = true
		for _, addr := range a.Addresses {
			if policy.FamilyOf(addr) == q.family() && !slices.Contains(addresses, addr) {
				addresses = append(addresses, addr)
			}
		}
	}
	switch {
	case !known:
		return fmt.Errorf("--src %q: neither the plugin nor the runtime knows a pod of this name on this node; give its address", q.Pod)
	case len(addresses) == 0:
		return fmt.Errorf("--src %q: the pod has no %s address", q.Pod, q.family())
	case len(addresses) > 1:
		var texts []string
		for _, addr := range addresses {
			texts = append(texts, addr.String())
		}
		return fmt.Errorf("--src %q: the pod has several %s addresses: give one of %s", q.Pod, q.family(), strings.Join(texts, ", "))
	}
	q.Source = addresses[0]
	return nil
}

// everybody is every attachment that is known: those on record first.
func (n Node) everybody() []attachment.Attachment {
	return slices.Concat(n.Attachments, n.OptedOut, n.Bypassing, n.Runtime)
}

// named finds the name of the pod that has an address, which a record made by an older plugin does not have.
func (n Node) named(addr netip.Addr) attachment.Pod {
	for _, a := range n.everybody() {
		if a.Pod.Name != "" && slices.Contains(a.Addresses, addr) {
			return a.Pod
		}
	}
	return attachment.Pod{}
}
