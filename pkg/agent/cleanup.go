package agent

import (
	"context"
	"log/slog"
)

// cleanup takes everything of ours off the node. A running agent would put it back, so there must be none.
func (p Program) cleanup(o Options, _ []string) int {
	lock, err := hold(o.StateDir)
	if err != nil {
		return p.failed(err)
	}
	defer lock.Release()
	ctx, cancel := context.WithTimeout(context.Background(), syncTime)
	defer cancel()
	if err := newNode(o, slog.New(slog.DiscardHandler)).Cleanup(ctx); err != nil {
		return p.failed(err)
	}
	return exitOK
}
