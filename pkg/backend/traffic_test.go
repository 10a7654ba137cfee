package backend_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// TestTotals: each step is a reading of one or more rules of 10 bytes a packet, and the totals after it.
func TestTotals(t *testing.T) {
	t.Parallel()
	rule := func(id, packets uint64, verdict policy.Verdict) backend.Traffic {
		return backend.Traffic{Rule: id, Family: policy.IPv4, Verdict: verdict, Packets: packets, Bytes: 10 * packets}
	}
	keep := func(id, packets uint64) backend.Traffic { return rule(id, packets, policy.Keep) }
	masquerade := func(id, packets uint64) backend.Traffic { return rule(id, packets, policy.Masquerade) }
	var totals backend.Totals
	totals.Begin([]backend.Traffic{keep(1, 100), masquerade(9, 50)})
	for _, step := range []struct {
		name              string
		reading           []backend.Traffic
		kept, masqueraded uint64
	}{
		{"nothing new", []backend.Traffic{keep(1, 100), masquerade(9, 50)}, 0, 0},
		{"more", []backend.Traffic{keep(1, 101), masquerade(9, 52)}, 1, 2},
		{"another prefix, and rules in another order", []backend.Traffic{masquerade(9, 52), keep(2, 3), keep(1, 102)}, 5, 2},
		{"a prefix less", []backend.Traffic{keep(2, 3), masquerade(9, 53)}, 5, 3},
		{"the prefix again", []backend.Traffic{keep(1, 4), keep(2, 3), masquerade(9, 53)}, 9, 3},
		{"the chain rewritten", []backend.Traffic{keep(1, 0), keep(2, 0), masquerade(9, 1)}, 9, 4},
		{"the chain gone", nil, 9, 4},
		{"the chain back", []backend.Traffic{keep(1, 2), masquerade(9, 5)}, 11, 9},
		{"two equal rules", []backend.Traffic{keep(1, 2), masquerade(9, 5), masquerade(9, 6)}, 11, 15},
		{"the same rule with fewer bytes", []backend.Traffic{keep(1, 2), {Rule: 9, Family: policy.IPv4, Verdict: policy.Masquerade, Packets: 11, Bytes: 60}}, 11, 26},
		{"a sum", []backend.Traffic{{Rule: 7, Family: policy.IPv4, Verdict: policy.Keep, Packets: 5, Bytes: 50, Sum: true}}, 16, 26},
		{"a sum that lost one of its counters", []backend.Traffic{{Rule: 7, Family: policy.IPv4, Verdict: policy.Keep, Packets: 3, Bytes: 30, Sum: true}}, 16, 26},
		{"and counts on", []backend.Traffic{{Rule: 7, Family: policy.IPv4, Verdict: policy.Keep, Packets: 4, Bytes: 40, Sum: true}}, 17, 26},
	} {
		totals.Add(step.reading)
		got := map[policy.Verdict]uint64{}
		for _, verdict := range []policy.Verdict{policy.Keep, policy.Masquerade} {
			got[verdict] = totals.Of(backend.Decision{Family: policy.IPv4, Verdict: verdict}).Packets
		}
		if diff := cmp.Diff(map[policy.Verdict]uint64{policy.Keep: step.kept, policy.Masquerade: step.masqueraded}, got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", step.name, diff)
		}
	}
	if got := totals.Of(backend.Decision{Family: policy.IPv6, Verdict: policy.Keep}); got != (backend.Counts{}) {
		t.Errorf("of a family without rules: %v", got)
	}
}
