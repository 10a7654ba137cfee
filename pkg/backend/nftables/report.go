package nftables

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Counters reads the rules of the shared chain that concern the family, and those of the chains that it leads to, which count by
// verdict and by egress group; and then what each prefix had of that, unless there are more than countLimit ranges.
func (b *Backend) Counters(ctx context.Context, s policy.Settings, family policy.Family) ([]backend.Counter, error) {
	var counters []backend.Counter
	err := session(ctx, func(c *nfnl.Conn) error {
		rules, err := ownRules(ctx, c)
		chains := []string{s.Chain}
		for _, name := range slices.Sorted(maps.Keys(rules)) {
			if f, led := chainFamily(name); led && f == family {
				chains = append(chains, name)
			}
		}
		for _, name := range chains {
			for _, r := range rules[name] {
				if f, ok := familyOf(r); ok && f != family || r.Comment == prefixesComment {
					continue
				}
				packets, bytes := nfnl.Counted(r)
				text := describe(s, r)
				if name != s.Chain {
					text = name + ": " + text // the chain says which group it is
				}
				counters = append(counters, backend.Counter{Rule: text, Verdict: decides(s, r, family, len(s.Families())), Packets: packets, Bytes: bytes})
			}
		}
		if err != nil {
			return err
		}
		return again(ctx, func() error {
			prefixes, err := countPrefixes(c, family, slices.Concat(slices.Collect(maps.Values(rules))...))
			if err == nil {
				counters = append(counters, prefixCounters(prefixes)...)
			}
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read %s counters: %w", family, err)
	}
	return counters, nil
}

// prefixCounters are in the order of the prefixes.
func prefixCounters(prefixes map[decision]prefixCount) (counters []backend.Counter) {
	for d, counts := range prefixes {
		counters = append(counters, backend.Counter{
			Rule: "@" + counts.set + ": " + d.prefix.String(), Verdict: d.verdict, Prefix: d.prefix, Part: true, Packets: counts.Packets, Bytes: counts.Bytes,
		})
	}
	slices.SortFunc(counters, func(a, b backend.Counter) int { return a.Prefix.Compare(b.Prefix) })
	return counters
}

func verdictOf(r nfnl.Rule) policy.Verdict {
	switch r.Comment {
	case keepComment, localComment, interfaceComment:
		return policy.Keep
	case masqueradeComment:
		return policy.Masquerade
	case sourcesComment:
		return policy.Translate
	case dropComment:
		return policy.Drop
	}
	if strings.HasPrefix(r.Comment, egressComment) {
		return policy.Translate
	}
	return ""
}

// describe finds the text of a rule that was read. One that is not ours is named by what it is made of.
func describe(s policy.Settings, r nfnl.Rule) string {
	for _, known := range candidates(s, r) {
		if sameRule(known, r) {
			return known.Text
		}
	}
	return expressions(r)
}

// candidates are the rules that r could be.
func candidates(s policy.Settings, r nfnl.Rule) (all []nfnl.Rule) {
	if f, led := chainFamily(r.Chain); led {
		return ledCandidates(s, f, r)
	}
	for i := range len(destinationSets(policy.IPv4)) {
		var shares []share
		for _, f := range families {
			shares = append(shares, share{f, destinationSets(f)[i], true, true})
		}
		all = append(all, chainRules(s, nil, shares)...)
	}
	if patterns := outputPatterns(r); len(patterns) > 0 {
		for _, on := range [][]policy.Family{families, families[:1]} {
			all = append(all, interfaceRules(s, patterns, on)...)
		}
	}
	return all
}

// ledCandidates are those of a chain that a map leads to, with the address or the map of addresses that is in r.
func ledCandidates(s policy.Settings, f policy.Family, r nfnl.Rule) (all []nfnl.Rule) {
	match := isFamily(f)
	for _, verdict := range []piece{giveBack(), drop()} {
		all = append(all, newRule(r.Chain, r.Comment, match, counter(), verdict))
	}
	all = append(all, newRule(r.Chain, localComment, match, addressType(unix.NFT_CMP_EQ, "local"), counter(), giveBack()))
	all = append(all, sourcesRules(r.Chain, s, f)...)
	all = append(all, portRules(s, r.Chain, r.Comment, []piece{match}, func(ports policy.PortRange) piece { return masquerade(s.RandomFully, ports) })...)
	var mask []byte
	for _, expr := range r.Exprs {
		if a, ok := netip.AddrFromSlice(nfnl.Loaded(expr)); ok {
			all = append(all, translateRules(s, r.Chain, r.Comment, match, loadAddress(a), f)...)
		}
		if m := nfnl.Masks(expr); len(m) > 0 {
			mask = m
		}
		if pool := nfnl.LookedUp(expr); mask != nil && strings.HasPrefix(pool, poolPrefix(f)) {
			all = append(all, translateRules(s, r.Chain, r.Comment, match, bitsOf(f, mask, pool), f)...)
		}
	}
	return all
}

// expressions names what a rule is made of, for one whose text is not known.
func expressions(r nfnl.Rule) string {
	var names []string
	for _, expr := range r.Exprs {
		names = append(names, nfnl.ExprName(expr))
	}
	return "a rule of " + strings.Join(names, ", ")
}
