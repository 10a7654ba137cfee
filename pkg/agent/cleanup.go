package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/ip-masq/ip-masq-cni/pkg/filelock"
	"github.com/ip-masq/ip-masq-cni/pkg/node"
)

// cleanup removes everything managed by ip-masq from the node. A running agent would put it back, so there must be none.
func (p Program) cleanup(o Options, _ []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), syncTime)
	defer cancel()
	n := newNode(o, discard())
	if o.DryRun {
		return p.previewCleanup(ctx, n)
	}
	lock, err := hold(o.StateDir)
	var held *filelock.HeldError
	if errors.As(err, &held) {
		return anotherAgent(held, "end it first: it would put everything back")
	}
	if err != nil {
		return err
	}
	defer lock.Release()
	p.warnOfPods(n, "lose")
	return n.Cleanup(ctx)
}

// previewCleanup prints what cleanup would remove, and writes nothing. It needs no lock: a daemon may run.
func (p Program) previewCleanup(ctx context.Context, n *node.Node) error {
	leftovers, err := n.Leftovers(ctx)
	for _, line := range leftovers {
		_, _ = fmt.Fprintln(p.Stdout, line)
	}
	p.warnOfPods(n, "would lose")
	return err
}

// warnOfPods says on stderr how many pods are about to send with their own addresses.
func (p Program) warnOfPods(n *node.Node, lose string) {
	attached, err := n.Attached()
	if err != nil {
		_, _ = fmt.Fprintf(p.Stderr, "ip-masq-agent: not every attached pod can be counted: %v\n", err)
	}
	if attached > 0 {
		_, _ = fmt.Fprintf(p.Stderr, "ip-masq-agent: attached pods that %s masquerading: %d; what they send leaves the node with their own addresses\n", lose, attached)
	}
}
