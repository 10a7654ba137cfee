package iptables

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
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

// Observe reads our two chains and POSTROUTING of every family. iptables is started for what the kernel holds in a form that
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

func (b *Backend) read(ctx context.Context, s policy.Settings, family policy.Family) (reading, error) {
	if b.isNFT() {
		return b.readNFT(ctx, s, family, s.Chain, s.PodsChain())
	}
	return b.readLegacy(ctx, s, family)
}

// readNFT reads POSTROUTING and the named chains. Of POSTROUTING nothing is asked that iptables would have to print, and it
// often cannot: native rules of other software belong there.
func (b *Backend) readNFT(ctx context.Context, s policy.Settings, family policy.Family, names ...string) (reading, error) {
	got := reading{}
	err := withNFT(family, func(c *nfnl.Conn) (err error) {
		if got.roots, err = nftRoots(c, s); err != nil {
			return err
		}
		if got.chains, err = b.readChainsNFT(ctx, c, family, names); err != nil {
			return err
		}
		if isUnreadable(got.chains[s.PodsChain()]) {
			got.lost, err = podsNFT(c, s, family)
		}
		return err
	})
	return got, err
}

// readChainsNFT takes what iptables prints for true if the kernel holds the same before and after it: iptables-nft 1.8.9
// silently ends early when other software changes the ruleset meanwhile.
func (b *Backend) readChainsNFT(ctx context.Context, c *nfnl.Conn, family policy.Family, names []string) (chains, error) {
	for range listAttempts {
		got := chains{}
		unknown := map[string]content{}
		for _, name := range names {
			raw, there, err := chainOf(c, name)
			if err != nil {
				return nil, err
			}
			is := contentOf(raw)
			known, ok := remembered.recall(place{b.kind, family, name}, is)
			switch {
			case !there:
			case len(raw) == 0:
				got[name] = []rule{}
			case ok:
				got[name] = known[name]
			default:
				unknown[name] = is
			}
		}
		if len(unknown) == 0 {
			return got, nil
		}
		printed, err := b.printed(ctx, family, slices.Sorted(maps.Keys(unknown))...)
		if err != nil {
			return nil, err
		}
		for name, is := range unknown {
			if raw, err := nftRules(c, name); err != nil || contentOf(raw) != is {
				continue
			}
			if len(printed[name]) != is.count {
				printed[name] = []rule{unreadable}
			}
			remembered.keep(place{b.kind, family, name}, is, chains{name: printed[name]})
		}
	}
	return nil, fmt.Errorf("%w: the chains %q change all the time", backend.ErrBusy, names)
}

// listAttempts is for chains that other programs change while they are listed.
const listAttempts = 10

// printed lists chains that are there, in one process. That fails as a whole where a native rule is in one of them; then each
// is listed alone. go-iptables would start one process for each, and one before to learn the version, where a pod starts.
func (b *Backend) printed(ctx context.Context, family policy.Family, names ...string) (chains, error) {
	sc := newScript()
	sc.list(names...)
	out, err := b.restore(ctx, family, sc)
	switch {
	case err == nil:
		return parseChains(out), nil
	case !refused(err):
		return nil, err
	case len(names) == 1:
		return chains{names[0]: {unreadable}}, nil
	}
	got := chains{}
	for _, name := range names {
		one, err := b.printed(ctx, family, name)
		if err != nil {
			return nil, err
		}
		maps.Copy(got, one)
	}
	return got, nil
}

// readLegacy lists chains only where the table, which the kernel gives away as a whole, is not as it was the last time.
func (b *Backend) readLegacy(ctx context.Context, s policy.Settings, family policy.Family) (reading, error) {
	if untouched(b.kind, family, natTable) {
		return reading{}, nil
	}
	at := place{b.kind, family, s.Chain}
	for range listAttempts {
		entries, err := legacyEntries(family, natTable)
		if err != nil {
			return reading{}, classifyKernel(err)
		}
		before := contentOfBytes(legacyContent(family, entries))
		if known, ok := remembered.recall(at, before); ok {
			return reading{chains: known, roots: rootsOf(s, known[postrouting])}, nil
		}
		names := slices.DeleteFunc([]string{s.Chain, s.PodsChain()}, func(name string) bool {
			_, there := legacyChain(family, entries, name)
			return !there
		})
		printed, err := b.printed(ctx, family, append(names, postrouting)...)
		if err != nil {
			return reading{}, err
		}
		if entries, err := legacyEntries(family, natTable); err == nil && contentOfBytes(legacyContent(family, entries)) == before {
			remembered.keep(at, before, printed)
		}
	}
	return reading{}, fmt.Errorf("%w: table %s changes all the time", backend.ErrBusy, natTable)
}

// rootsOf reads POSTROUTING as iptables printed it.
func rootsOf(s policy.Settings, rules []rule) []root {
	roots := make([]root, len(rules))
	for i, r := range rules {
		roots[i].final = endsTraversal(r)
		if slices.Equal(r, rootRule(s)) || isRoot(s, r) {
			roots[i].rule = r
		}
	}
	return roots
}

// unreadable stands for the rules of a chain that iptables cannot print, because a native rule of nftables is among them.
var unreadable = rule{"(rules that iptables cannot print)"}

func isUnreadable(rules []rule) bool { return len(rules) == 1 && slices.Equal(rules[0], unreadable) }

// parseChains reads the output of -S. Lines that are no rule of a chain, or that cannot be split, are skipped.
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
	source, err := netip.ParsePrefix(r.value("-s"))
	if err != nil || !source.IsSingleIP() {
		return ruleset.Pod{}, false
	}
	return podFrom(r.value("--comment"), source.Addr())
}

func podFrom(comment string, address netip.Addr) (ruleset.Pod, bool) {
	words := strings.SplitN(comment, " ", 4)
	if len(words) != 4 || words[0]+" "+words[1] != podCommentPrefix || !attachment.ID(words[2]).Valid() {
		return ruleset.Pod{}, false
	}
	return ruleset.Pod{Owner: attachment.ID(words[2]), Address: address, Label: words[3]}, true
}

// podsNFT reads the pods' chain without iptables.
func podsNFT(c *nfnl.Conn, s policy.Settings, family policy.Family) (pods []ruleset.Pod, err error) {
	rules, err := nftRules(c, s.PodsChain())
	for _, raw := range rules {
		if pod, to, ok := podOfNative(family, nfnl.DecodeRule(raw)); ok && to == s.Chain {
			pods = append(pods, pod)
		}
	}
	return pods, err
}

// podOfNative reads back the pod of a rule, and the chain that it leads to, as the kernel holds them.
func podOfNative(family policy.Family, r nfnl.Rule) (pod ruleset.Pod, to string, ok bool) {
	source := uint32(12) // where the source address is in the network header
	if family == policy.IPv6 {
		source = 8
	}
	for i := range max(len(r.Exprs)-1, 0) {
		if !nfnl.Loads(r.Exprs[i], source, uint32(family.Bits()/8)) {
			continue
		}
		if address, fits := netip.AddrFromSlice(nfnl.Equals(r.Exprs[i+1])); fits {
			pod, ok = podFrom(nfnl.XTComment(r), address)
			return pod, nfnl.Target(r), ok
		}
	}
	return ruleset.Pod{}, "", false
}
