package node

import (
	"context"
	"net/netip"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Flows deletes tracked connections, which keep the source address that they began with whatever the rules say now.
type Flows interface {
	// Flush deletes the connections of the given sources whose verdict differs between two policies, and no other.
	Flush(ctx context.Context, former, now policy.Policy, sources []netip.Addr) (deleted int, err error)
}

// flushFlows runs after the rules changed: a connection that is deleted earlier would come back with its old address. That it
// fails is no reason to call the Sync a failure: the rules are right, and old connections end by themselves.
func (n *Node) flushFlows(ctx context.Context, former, now policy.Policy) {
	if n.flows == nil {
		return
	}
	records, _ := n.Records()
	var sources []netip.Addr
	for _, a := range records {
		sources = append(sources, a.Addresses...)
	}
	deleted, err := n.flows.Flush(ctx, former, now, sources)
	if err != nil {
		n.log("could not end connections whose verdict changed; they keep their old address until they end", "error", err)
	}
	if deleted > 0 {
		n.log("ended connections whose verdict changed", "connections", deleted)
	}
}
