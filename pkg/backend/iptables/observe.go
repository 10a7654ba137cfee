package iptables

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// reading is what the kernel holds for one family.
type reading struct {
	chains chains
	roots  []root        // POSTROUTING
	lost   []ruleset.Pod // pods in a pods' chain that iptables cannot print
}

// chains maps a chain's name to its rules; a chain that is not there is missing from the map. One that iptables cannot print
// has the rule unreadable.
type chains map[string][]rule

// root is a rule of POSTROUTING, as far as it matters to ours.
type root struct {
	rule   rule   // of an ip-masq-agent; nil for one of other software
	handle uint64 // in nf_tables
	final  bool   // no packet gets past it
}

// readings is the Raw form of an observation.
type readings map[policy.Family]reading

// Observe reads our chains and POSTROUTING of every family. iptables is started for what the kernel holds in a form that
// it has not yet printed in this process.
func (b *Backend) Observe(ctx context.Context, s policy.Settings, families ...policy.Family) (backend.Observed, error) {
	observed := backend.Observed{}
	raw := readings{}
	for _, family := range families {
		got, err := b.read(ctx, s, family)
		if err != nil {
			return backend.Observed{}, fmt.Errorf("read %s rules: %w", family, err)
		}
		raw[family] = got
		observed.Tables = append(observed.Tables, summary(s, family, got))
	}
	observed.Raw = raw
	return observed, nil
}

func summary(s policy.Settings, family policy.Family, got reading) backend.ObservedTable {
	table := backend.ObservedTable{Family: family, Chain: chainState(got.chains, s.Chain), Pods: got.lost}
	for _, r := range got.roots {
		if slices.Equal(r.rule, rootRule(s)) {
			table.Root++
		}
	}
	for _, r := range got.chains[s.PodsChain()] {
		if pod, ok := podOf(r); ok {
			table.Pods = append(table.Pods, pod)
		}
	}
	chosen := chosenBy(got.chains[sourcesChain(s)])
	for i, pod := range table.Pods {
		table.Pods[i].Translated = chosen[pod]
		delete(chosen, pod)
	}
	if s.Sources == policy.SourcesAll { // where no pod has a rule but for that
		for pod, address := range chosen {
			pod.Translated = address
			table.Pods = append(table.Pods, pod)
		}
		ruleset.Sort(table.Pods)
	}
	return table
}

func chainState(got chains, name string) backend.ChainState {
	rules, there := got[name]
	switch {
	case !there:
		return backend.ChainMissing
	case len(rules) == 0:
		return backend.ChainEmpty
	}
	return backend.ChainFilled
}

// unreadable stands for the rules of a chain that iptables cannot print, because a native rule of nftables is among them.
var unreadable = rule{"(rules that iptables cannot print)"}

func isUnreadable(rules []rule) bool { return len(rules) == 1 && slices.Equal(rules[0], unreadable) }

// parseChains reads the output of -S. Lines that are no rule of a chain, or that cannot be split, are skipped.
func parseChains(out string) chains {
	got, lines := chains{}, newSplitter()
	for line := range strings.Lines(out) {
		args, err := lines.split(strings.TrimSpace(line))
		if err != nil || len(args) < 2 {
			continue
		}
		switch args[0] {
		case "-N", "-P":
			got[args[1]] = []rule{}
		case "-A":
			got[args[1]] = append(got[args[1]], rule(args[2:]))
		}
	}
	return got
}
