package iptables

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// chains maps a chain's name to its rules; a chain that is not there is missing from the map.
type chains map[string][]rule

// reading is the Raw form of an observation.
type reading map[policy.Family]chains

// Observe reads our two chains and POSTROUTING of every family, one process per family where all three are there.
func (b *Backend) Observe(ctx context.Context, s policy.Settings, families ...policy.Family) (backend.Observed, error) {
	observed := backend.Observed{}
	raw := reading{}
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

func summary(s policy.Settings, family policy.Family, got chains) backend.ObservedTable {
	table := backend.ObservedTable{
		Family: family,
		Root:   count(got[postrouting], rootRule(s)),
		Chain:  chainState(got, s.Chain),
	}
	for _, r := range got[s.PodsChain()] {
		if pod, ok := podOf(r); ok {
			table.Pods = append(table.Pods, pod)
		}
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

// read lists the chains in one process. That fails as a whole where one of them is missing, or where a native nftables rule
// in POSTROUTING is beyond what iptables can print; then every chain is read alone.
func (b *Backend) read(ctx context.Context, s policy.Settings, family policy.Family) (chains, error) {
	if b.untouched(family) {
		return chains{}, nil
	}
	names := []string{s.Chain, s.PodsChain(), postrouting}
	if got, err := b.list(ctx, family, names...); err == nil {
		return got, nil
	} else if classified(err) && !b.opaque(err) {
		return nil, err
	}
	return b.readEach(ctx, s, family)
}

// list prints chains by one iptables-restore that writes nothing.
func (b *Backend) list(ctx context.Context, family policy.Family, names ...string) (chains, error) {
	sc := newScript()
	sc.list(names...)
	out, err := b.restore(ctx, family, sc)
	if err != nil {
		return nil, err
	}
	return parseChains(out), nil
}

func (b *Backend) readEach(ctx context.Context, s policy.Settings, family policy.Family) (chains, error) {
	got := chains{}
	for _, name := range []string{s.Chain, s.PodsChain(), postrouting} {
		one, err := b.list(ctx, family, name)
		switch {
		case err == nil:
			got[name] = one[name]
		case name == postrouting && (b.opaque(err) || !classified(err)):
			got[name], err = b.probeRoots(ctx, s, family)
			if err != nil {
				return nil, err
			}
		case classified(err):
			return nil, err
		}
	}
	return got, nil
}

// probeRoots asks for every known form of a root rule one by one, for a POSTROUTING that cannot be printed. There may be a
// native nftables rule in it: that makes -S fail, and -C and -D too for whatever stands behind it, so the kernel is asked.
func (b *Backend) probeRoots(ctx context.Context, s policy.Settings, family policy.Family) ([]rule, error) {
	if b.kind == backend.IPTablesNFT {
		return nftRoots(family, knownRoots(s)...)
	}
	var found []rule
	for _, r := range knownRoots(s) {
		sc := newScript()
		sc.check(postrouting, r)
		_, err := b.restore(ctx, family, sc)
		switch {
		case err == nil:
			found = append(found, r)
		case classified(err):
			return nil, err
		}
	}
	return found, nil
}

// parseChains reads the output of -S. Lines that are no rule of a chain, or that cannot be split, are skipped: they are not
// ours.
func parseChains(out string) chains {
	got := chains{}
	for line := range strings.Lines(out) {
		args, err := split(strings.TrimSpace(line))
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

// podOf reads back the pod that podRule wrote.
func podOf(r rule) (ruleset.Pod, bool) {
	words := strings.SplitN(r.value("--comment"), " ", 4)
	if len(words) != 4 || words[0]+" "+words[1] != podCommentPrefix || !attachment.ID(words[2]).Valid() {
		return ruleset.Pod{}, false
	}
	source, err := netip.ParsePrefix(r.value("-s"))
	if err != nil || !source.IsSingleIP() {
		return ruleset.Pod{}, false
	}
	return ruleset.Pod{Owner: attachment.ID(words[2]), Address: source.Addr(), Label: words[3]}, true
}

// opaque reports whether a failure may come from a native nftables rule in POSTROUTING: iptables-nft ends with VERSION_PROBLEM
// at one that it cannot decode, as it does on a kernel without nf_tables.
func (b *Backend) opaque(err error) bool {
	var failed *ExitError
	return b.kind == backend.IPTablesNFT && errors.As(err, &failed) && failed.Status == exitVersion
}

// classified reports whether an error says more than that a chain or rule is absent.
func classified(err error) bool {
	return errors.Is(err, backend.ErrUnavailable) || errors.Is(err, backend.ErrBusy) || errors.Is(err, errKilled) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}
