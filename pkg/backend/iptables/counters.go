package iptables

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Counters lists the shared chain verbosely, which adds "-c PACKETS BYTES" to each rule, and the chains of destinations and of
// pods' choices to which it leads; rules that lead there decide nothing. What goes to an egress group is counted where it goes
// there, under what the group does.
func (b *Backend) Counters(ctx context.Context, s policy.Settings, family policy.Family) ([]backend.Counter, error) {
	if untouched(b.kind, family, natTable) {
		return nil, nil
	}
	groups := map[string]policy.Verdict{}
	var counters []backend.Counter
	names := []string{s.Chain}
	for i := 0; i < len(names); i++ {
		listed, err := b.list(ctx, family, natTable, names[i])
		if err != nil {
			return nil, fmt.Errorf("read %s counters: %w", family, err)
		}
		for _, r := range listed {
			to := r.target()
			if to == interfacesChain(s) || to == sourcesChain(s) {
				if !slices.Contains(names, to) {
					names = append(names, to)
				}
				continue
			}
			counter := counterOf(r)
			if isGroupChain(s, to) {
				if _, known := groups[to]; !known {
					if groups[to], err = b.decides(ctx, family, to); err != nil {
						return nil, fmt.Errorf("read %s counters: %w", family, err)
					}
				}
				counter.Verdict = groups[to]
			}
			counters = append(counters, counter)
		}
	}
	return counters, nil
}

// decides returns the verdict of the rules in an egress group's chain, which all have the same.
func (b *Backend) decides(ctx context.Context, family policy.Family, chain string) (verdict policy.Verdict, err error) {
	read := readTrafficLegacy
	if b.isNFT() {
		read = readTrafficNFT
	}
	traffic, err := read(ctx, family, chain, func(string) bool { return false })
	if len(traffic) > 0 {
		verdict = traffic[0].Verdict
	}
	return verdict, err
}

// counterOf takes the counters out of a rule, and reads what the rule decides.
func counterOf(r rule) backend.Counter {
	c := backend.Counter{Verdict: verdictOf(r)}
	if prefix, err := netip.ParsePrefix(r.value("-d")); err == nil {
		c.Prefix = prefix
	}
	if i := slices.Index(r, "-c"); i >= 0 && i+2 < len(r) {
		c.Packets, _ = strconv.ParseUint(r[i+1], 10, 64)
		c.Bytes, _ = strconv.ParseUint(r[i+2], 10, 64)
	}
	c.Rule = withoutCounters(r).String()
	return c
}

// withoutCounters takes -c PACKETS BYTES out of a rule.
func withoutCounters(r rule) rule {
	if i := slices.Index(r, "-c"); i >= 0 && i+2 < len(r) {
		return slices.Delete(slices.Clone(r), i, i+3)
	}
	return r
}

func verdictOf(r rule) policy.Verdict {
	return verdictOfTarget(r.target(), r.value("--comment"))
}

// verdictOfTarget reads what a target does, with the rule's comment for what stands for a drop.
func verdictOfTarget(target, comment string) policy.Verdict {
	switch target {
	case "RETURN":
		return policy.Keep
	case "MASQUERADE":
		return policy.Masquerade
	case "NFQUEUE":
		return policy.Drop
	case "SNAT":
		if strings.HasSuffix(comment, discardComment) {
			return policy.Drop
		}
		return policy.Translate
	}
	return ""
}
