package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/node"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// flowChange is what may have made connections wrong: former rules, nil where there were none or they are the same, and addresses
// that came behind the policy.
type flowChange struct {
	former *node.Rules
	now    node.Rules
	fresh  []netip.Addr
}

// join is one change that ends the connections of two.
func (c flowChange) join(newer flowChange) flowChange {
	if c.former != nil {
		newer.former = c.former
	}
	newer.fresh = append(slices.Clone(c.fresh), newer.fresh...)
	return newer
}

// flowChangeOf returns what a sync changed for connections, and whether that is anything.
func flowChangeOf(result node.Result, inForce policy.Policy) (change flowChange, is bool) {
	return flowChange{result.Former, node.Rules{Policy: inForce, Addresses: result.Addresses}, result.New}, result.Former != nil || len(result.New) > 0
}

// endFlows ends the connections that contradict the policy, and returns how many.
func endFlows(ctx context.Context, n *node.Node, c flowChange, log *slog.Logger) (ended int) {
	ended, err := n.EndFlows(ctx, c.former, c.now, c.fresh)
	if err != nil && ctx.Err() == nil {
		log.Warn("could not end connections that contradict the policy; they keep their old address until they end", "error", err)
	}
	if ended > 0 {
		log.Info("ended connections that contradict the policy", "connections", ended)
	}
	return ended
}
