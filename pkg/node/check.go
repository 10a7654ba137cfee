package node

import (
	"context"
	"errors"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
)

// Check verifies, without writing, that an attachment is behind the policy, if its packets pass the node. It fails with a *backend.Missing.
func (n *Node) Check(ctx context.Context, a attachment.Attachment) error {
	if n.bypassing(a) != "" {
		return nil
	}
	b, decision, err := n.current()
	want := n.single(decision, n.governed(a))
	if len(want.Tables) == 0 {
		return nil // no address of a family that is on: there was nothing to do
	}
	if errors.Is(err, ErrNotChosen) {
		return &backend.Missing{Part: backend.PartRoot, Detail: err.Error() + ": was ADD ever called?"}
	}
	if err != nil {
		return err
	}
	return b.Verify(ctx, want)
}
