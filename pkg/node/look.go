package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// View is what Look sees.
type View struct {
	Decision    Decision
	Attachments []attachment.Attachment
	// Drift lists what a Sync would change in the kernel. It is empty when kernel and policy are equal, and nil with an error.
	Drift []backend.Drift
	// Egress is what the node makes of the policy's egress groups, nil with EgressErr.
	Egress      []ruleset.Egress
	EgressErr   error
	Counters    map[policy.Family][]backend.Counter
	CountersErr error
}

// InUse opens the backend on record, with the decision that chose it.
func (n *Node) InUse() (backend.Backend, Decision, error) { return n.current() }

// Look compares kernel and policy without writing anything, not even the choice of a backend.
func (n *Node) Look(ctx context.Context, p policy.Policy) (View, error) {
	records, err := n.Records()
	if err != nil {
		n.log.Warn("skipping attachment records that cannot be read", "error", err)
	}
	view := View{Attachments: records, Egress: []ruleset.Egress{}, Counters: map[policy.Family][]backend.Counter{}}
	own := ruleset.Node{}
	if own.Addresses, view.EgressErr = SourceAddresses(p, records); view.EgressErr == nil && len(p.Egress) > 0 {
		view.Egress = ruleset.Build(p, nil, own).Egress()
	}
	var b backend.Backend
	b, view.Decision, err = n.current()
	if err := errors.Join(err, view.EgressErr); err != nil {
		return view, err
	}
	p.Settings.RandomFully = p.Settings.RandomFully && view.Decision.Features.RandomFully
	got, err := b.Observe(ctx, p.Settings, p.Settings.Families()...)
	if err != nil {
		return view, fmt.Errorf("read the rules: %w", err)
	}
	own.Unrecorded, own.OptedOut = ruleset.Unrecorded(got.Pods(), records), n.Exempt(p.Settings)
	want := ruleset.Build(p, records, own)
	view.Drift = append([]backend.Drift{}, b.Diff(got, want)...)
	view.Drift = append(view.Drift, n.otherPlaces(ctx, place{b.Kind(), p.Settings.Chain}, p.Settings)...)
	for _, family := range p.Settings.Families() {
		counters, err := b.Counters(ctx, p.Settings, family)
		view.Counters[family] = counters
		view.CountersErr = errors.Join(view.CountersErr, err)
	}
	return view, nil
}

// otherPlaces says where rules managed by ip-masq stand beside those in use: another agent's or another chain's.
func (n *Node) otherPlaces(ctx context.Context, inUse place, s policy.Settings) []backend.Drift {
	var found backend.Drifts
	for _, family := range bothFamilies {
		for _, p := range n.everyPlace(ctx, family) {
			if p != inUse || !slices.Contains(s.Families(), family) {
				found.Add(backend.ObjectChain, backend.ProblemUnexpected, "%s is in force in %s although it is not in use: the next sync removes it (%s)", p.chain, p.kind, family)
			}
		}
	}
	return found
}
