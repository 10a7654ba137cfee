package attachment

import (
	"net/netip"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Attachment is one interface of one container and the addresses it sends from.
type Attachment struct {
	Owner
	Pod       Pod          `json:"pod,omitzero"` // empty where the runtime did not say
	NetNS     NetNS        `json:"netns,omitzero"`
	Addresses []netip.Addr `json:"addresses"`
	// Bypass is how the packets get past the node, the kind of the interface; empty where they do not.
	Bypass string `json:"bypass,omitempty"`
	// SourceAddresses are the prefixes of the annotation that chooses the source address, where the policy let it count when the
	// pod was attached. Releases that do not know the field masquerade such a pod.
	SourceAddresses []netip.Prefix `json:"sourceAddresses,omitempty"`
	// Refused are the pod's annotations that did not count, because the policy does not allow them.
	Refused []string `json:"refusedAnnotations,omitempty"`

	// What is not kept: what pod and network ask for, and where the pod sends what is not on its link.
	Asked    Asked        `json:"-"`
	Gateways []netip.Addr `json:"-"`
}

// Normalize unmaps IPv4-mapped addresses, drops zones and what is no address, sorts and removes duplicates.
func Normalize(addresses []netip.Addr) []netip.Addr {
	out := make([]netip.Addr, 0, len(addresses))
	for _, addr := range addresses {
		if addr.IsValid() {
			out = append(out, addr.Unmap().WithZone(""))
		}
	}
	policy.SortAddresses(out)
	return slices.Compact(out)
}

// Has reports whether the attachment has an address of the family.
func (a Attachment) Has(f policy.Family) bool {
	return slices.ContainsFunc(a.Addresses, func(addr netip.Addr) bool { return policy.FamilyOf(addr) == f })
}
