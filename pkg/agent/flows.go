package agent

import (
	"context"
	"log/slog"

	"github.com/ip-masq/ip-masq-cni/pkg/node"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// policyChange is a new policy, and the one that live connections began under.
type policyChange struct{ former, now policy.Policy }

// join is one change that ends the connections of two.
func (c policyChange) join(newer policyChange) policyChange { return policyChange{c.former, newer.now} }

// endFlows ends the connections whose verdict changed, and returns how many.
func endFlows(ctx context.Context, n *node.Node, c policyChange, log *slog.Logger) (ended int) {
	ended, err := n.EndFlows(ctx, c.former, c.now)
	if err != nil && ctx.Err() == nil {
		log.Warn("could not end connections whose verdict changed; they keep their old address until they end", "error", err)
	}
	if ended > 0 {
		log.Info("ended connections whose verdict changed", "connections", ended)
	}
	return ended
}
