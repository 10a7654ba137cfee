package node

import (
	"context"
	"net/netip"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// FlowChange ends tracked connections, which keep the source address that they began with whatever the rules say now. It begins
// before the rules change.
type FlowChange interface {
	// End deletes the connections of the given sources whose verdict differs between two policies, and those that began while
	// the rules changed and contradict the new one; no other. It is called once.
	End(ctx context.Context, former, now policy.Policy, sources []netip.Addr) (deleted int, err error)
}

// EndFlows ends the attached pods' connections whose verdict differs between two policies. Call it after the Sync that put the
// new policy in force: a connection that is ended earlier would come back with its old address. It takes no lock, and its
// failure is no reason to call the Sync one: the rules are right, and old connections end by themselves.
func (n *Node) EndFlows(ctx context.Context, former, now policy.Policy) (ended int, err error) {
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
	records, _ := n.records.List()
	var sources []netip.Addr
	for _, a := range records {
		sources = append(sources, a.Addresses...)
	}
	return change.End(ctx, former, now, sources)
}

// beginFlows is called before the rules change to another policy. A Sync that failed has begun already.
func (n *Node) beginFlows() {
	n.changingMu.Lock()
	defer n.changingMu.Unlock()
	if n.flows != nil && n.changing == nil {
		n.changing = n.flows()
	}
}
