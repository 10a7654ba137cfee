package node

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
)

// bypassing says how the attachment's packets get past the node, empty where they do not, or where that cannot be told. A chained
// plugin is not given the list's main plugin, and results look alike, so the kernel is asked what the pod's interface is: a child
// or the whole of a network card sends through the card itself, unless it is told to send to the node.
func (n *Node) bypassing(r *routes, a attachment.Attachment) string {
	if a.NetNS.Path == "" {
		return ""
	}
	l, err := r.linkIn(a.NetNS.Path, a.IfName)
	if err != nil {
		n.log.Debug("the pod's interface cannot be read; its packets are taken to pass the node", "network", a.Network, "container", a.ContainerID, "error", err)
		return ""
	}
	how := l.direct()
	if how != "" && slices.ContainsFunc(a.Gateways, r.isLocal) {
		return "" // it sends to the node through the card, or through a sibling of its interface
	}
	return how
}

const ipvlanL2 = 0 // IPVLAN_MODE_L2; the others route on the node

// direct names an interface that sends through a network card itself.
func (l link) direct() string {
	switch l.kind {
	case "macvlan", "macvtap", "vlan", "ipoib":
		return l.kind
	case "ipvlan":
		if l.mode == ipvlanL2 {
			return l.kind
		}
	case "":
		if l.hardware == unix.ARPHRD_ETHER || l.hardware == unix.ARPHRD_INFINIBAND {
			return "hardware"
		}
	}
	return ""
}

// Bypassing lists the attachments whose packets do not pass the node, with how in Bypass, and whose network namespace is not
// provably gone. It only reads.
func (n *Node) Bypassing() ([]attachment.Attachment, error) {
	return n.withoutRules(func(a attachment.Attachment) bool { return a.Bypass != "" })
}
