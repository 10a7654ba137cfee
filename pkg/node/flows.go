package node

import (
	"context"
	"net/netip"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// FlowChange ends tracked connections, which keep the source address that they began with whatever the rules say now. It begins
// before the rules change.
type FlowChange interface {
	// End deletes the connections of the given sources that contradict the policy now, by what the former one gave them, or
	// none; no other. It is called once.
	End(ctx context.Context, former, now policy.Policy, sources []netip.Addr) (deleted int, err error)
}

// EndFlows ends the connections that contradict the policy now: those of the sources that a Sync returned as New, and all
// attached pods' where it returned a Former policy, which may have given them another address. Call it after that Sync: a
// connection that is ended earlier would come back with its old address. It takes no lock, and its failure is no reason to call
// the Sync one: the rules are right, and old connections end by themselves.
func (n *Node) EndFlows(ctx context.Context, former *policy.Policy, now policy.Policy, sources []netip.Addr) (ended int, err error) {
	if n.flows == nil {
		return 0, nil
	}
	n.beginFlows()
	n.changingMu.Lock()
	change := n.changing
	n.changing = nil
	n.changingMu.Unlock()
	if change == nil {
		return 0, nil
	}
	if former == nil {
		return change.End(ctx, now, now, sources)
	}
	records, _ := n.records.List()
	return change.End(ctx, *former, now, addressesOf(records))
}

func addressesOf(attachments []attachment.Attachment) (addresses []netip.Addr) {
	for _, a := range attachments {
		addresses = append(addresses, a.Addresses...)
	}
	return addresses
}

// newAddresses are those on record that were not, or were another attachment's, at the last Sync that ended well: all of them at
// the first one. From then on they are known.
func (n *Node) newAddresses() (fresh []netip.Addr) {
	records, _ := n.Records()
	governed := map[ruleset.Pod]bool{}
	for _, pod := range ruleset.Pods(records...) {
		if !n.governedBefore[pod] {
			fresh = append(fresh, pod.Address)
		}
		governed[pod] = true
	}
	n.governedBefore = governed
	return fresh
}

// beginFlows is called before the rules change to another policy. A Sync that failed has begun already.
func (n *Node) beginFlows() {
	n.changingMu.Lock()
	defer n.changingMu.Unlock()
	if n.flows != nil && n.changing == nil {
		n.changing = n.flows()
	}
}
