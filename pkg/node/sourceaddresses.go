package node

import (
	"net/netip"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/nodeaddr"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// SourceAddresses are those of the node's own addresses that the policy may give to connections, or the annotations of the given
// attachments. Where none is chosen, which is the rule, the kernel is not asked.
func SourceAddresses(p policy.Policy, attachments []attachment.Attachment) ([]netip.Addr, error) {
	prefixes := ruleset.SourceAddresses(p, attachments)
	if len(prefixes) == 0 {
		return nil, nil
	}
	all, err := nodeaddr.List()
	return all.In(prefixes), err
}
