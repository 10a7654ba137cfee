package node

import (
	"context"
	"errors"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// Check verifies, without writing, that an attachment is behind the policy, if its packets pass the node and it did not opt out. What
// its ADD decided counts, where that is on record. It fails with a *backend.Missing.
func (n *Node) Check(ctx context.Context, a attachment.Attachment) error {
	a, optedOut, err := n.decided(a)
	if err != nil {
		return err
	}
	b, decision, chosen := n.current()
	want := n.exempt(decision, a)
	r := askRoutes()
	defer r.close()
	switch {
	case !optedOut && n.bypassing(r, a) == "":
		if want, err = n.single(decision, n.governed(r, a)); err != nil {
			return err
		}
	case !ruleset.NeedsOptedOut(want.Settings):
		return nil
	}
	if len(want.Tables) == 0 {
		return nil // no address of a family that is on: there was nothing to do
	}
	if errors.Is(chosen, ErrNotChosen) {
		return &backend.Missing{Part: backend.PartRoot, Detail: chosen.Error() + ": was ADD ever called?"}
	}
	if chosen != nil {
		return chosen
	}
	return b.Verify(ctx, want)
}

// decided is decide for an attachment that was added: what the policy lets its pod ask for may be another thing by now.
func (n *Node) decided(a attachment.Attachment) (decided attachment.Attachment, optedOut bool, err error) {
	if record, err := n.records.Get(a.ID()); err == nil {
		a.SourceAddresses = record.SourceAddresses
		return a, false, nil
	}
	if _, err := n.optOuts.Get(a.ID()); err == nil {
		return a, true, nil
	}
	return n.decide(a)
}
