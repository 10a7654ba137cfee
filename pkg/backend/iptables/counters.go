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

// Counters lists the shared chain verbosely, which adds "-c PACKETS BYTES" to each rule.
func (b *Backend) Counters(ctx context.Context, s policy.Settings, family policy.Family) ([]backend.Counter, error) {
	if untouched(b.kind, family, natTable) {
		return nil, nil
	}
	lines, err := call(ctx, b, family, func(t tables) ([]string, error) { return t.ListWithCounters(natTable, s.Chain) })
	if err != nil {
		return nil, fmt.Errorf("read %s counters: %w", family, err)
	}
	var counters []backend.Counter
	for _, r := range parseChains(strings.Join(lines, "\n"))[s.Chain] {
		counters = append(counters, counterOf(r))
	}
	return counters, nil
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
	switch r.target() {
	case "RETURN":
		return policy.Keep
	case "MASQUERADE":
		return policy.Masquerade
	}
	return ""
}
