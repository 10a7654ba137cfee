package node

import (
	"context"
	"fmt"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// View is what Look sees.
type View struct {
	Decision    Decision
	Attachments []attachment.Attachment
	// Drift lists what a Sync would change in the kernel. It is empty when kernel and policy are equal.
	Drift    []string
	Counters map[policy.Family][]backend.Counter
}

// Look compares kernel and policy without writing anything, not even the choice of a backend.
func (n *Node) Look(ctx context.Context, p policy.Policy) (View, error) {
	records, err := n.Records()
	if err != nil {
		n.log.Warn("skipping attachment records that cannot be read", "error", err)
	}
	b, decision, err := n.current()
	view := View{Decision: decision, Attachments: records, Drift: []string{}, Counters: map[policy.Family][]backend.Counter{}}
	if err != nil {
		view.Drift = append(view.Drift, err.Error())
		return view, nil
	}
	p.Settings.RandomFully = p.Settings.RandomFully && decision.Features.RandomFully
	got, err := b.Observe(ctx, p.Settings, p.Settings.Families()...)
	if err != nil {
		return view, fmt.Errorf("read the rules: %w", err)
	}
	want := ruleset.Build(p, records, ruleset.Unrecorded(got.Pods(), records))
	view.Drift = append(view.Drift, b.Diff(got, want)...)
	for _, family := range p.Settings.Families() {
		if counters, err := b.Counters(ctx, p.Settings, family); err == nil {
			view.Counters[family] = counters
		}
	}
	return view, nil
}
