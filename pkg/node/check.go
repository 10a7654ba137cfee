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
	b, decision, err := n.current()
	var want ruleset.State
	if optedOut || n.bypassing(a) != "" {
		want = n.passedOver(decision, a)
		if !ruleset.NeedsOptedOut(want.Settings) {
			return nil
		}
	} else {
		want = n.single(decision, n.governed(a))
	}
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

// passedOver is the state of one attachment that opted out.
func (n *Node) passedOver(d Decision, a attachment.Attachment) ruleset.State {
	p := n.withoutPrefixes(d)
	a.Addresses = pods(a.Addresses)
	return ruleset.Build(p, nil, ruleset.Node{OptedOut: []attachment.Attachment{a}}).Of(families(p.Settings, a)...)
}
