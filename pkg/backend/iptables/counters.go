package iptables

import (
	"context"
	"fmt"
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

// counterOf takes the counters out of a rule.
func counterOf(r rule) backend.Counter {
	i := slices.Index(r, "-c")
	if i < 0 || i+2 >= len(r) {
		return backend.Counter{Rule: r.String()}
	}
	packets, _ := strconv.ParseUint(r[i+1], 10, 64)
	bytes, _ := strconv.ParseUint(r[i+2], 10, 64)
	return backend.Counter{Rule: slices.Delete(slices.Clone(r), i, i+3).String(), Packets: packets, Bytes: bytes}
}
