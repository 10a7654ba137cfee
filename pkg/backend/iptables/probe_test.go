package iptables_test

import (
	"context"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/iptables"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/registry"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// leave makes what a probe leaves that is killed between its two transactions, and worse.
func (k *kernel) leave() {
	k.Helper()
	k.sh("$T -t nat -N IP-MASQ-AGENT-PROBE; $T -t nat -A IP-MASQ-AGENT-PROBE -d 169.254.0.0 -j RETURN")
	if k.b.Kind() == backend.IPTablesNFT {
		k.sh("nft add rule ip nat IP-MASQ-AGENT-PROBE numgen random mod 2 0 accept")
	}
}

// TestProbeAfterAKilledOne: the leftover does not count against the variant, and is gone after the next probe.
func TestProbeAfterAKilledOne(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			k := newKernel(t, kind)
			k.leave()
			k.must(k.in(func(ctx context.Context) error {
				features, err := k.b.Probe(ctx, policy.IPv4)
				if err == nil && !features.RandomFully {
					t.Error("no random ports")
				}
				return err
			}), "Probe")
			if rules := k.rules4(); strings.Contains(rules, "PROBE") {
				t.Errorf("left:\n%s", rules)
			}
		})
	}
}

// TestLeftoverMovesNothing: standing rules of one variant outweigh a leftover in the other, and cleaning up finds the leftover.
func TestLeftoverMovesNothing(t *testing.T) {
	for i, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			k := newKernel(t, kind)
			k.settle(k.state(0, pod(1)))
			other := &kernel{t, k.Space, iptables.New(kinds[1-i], ""), k.s}
			other.leave()
			_ = k.in(func(context.Context) error {
				candidates := registry.Candidates("", registry.IPTables, k.s, policy.IPv4)
				if len(candidates) != 2 || candidates[0].Kind != kind {
					t.Errorf("candidates %+v, want %s first", candidates, kind)
				}
				if standing := registry.Standing("", k.s, policy.IPv4); len(standing) != 2 {
					t.Errorf("standing %v, want both variants", standing)
				}
				return nil
			})
			k.must(k.in(func(ctx context.Context) error { return other.b.RemoveAll(ctx) }), "RemoveAll")
			if rules := other.rules4(); strings.Contains(rules, "PROBE") {
				t.Errorf("left:\n%s", rules)
			}
			k.leave()
			k.must(k.in(func(ctx context.Context) error { return k.b.RemoveAll(ctx) }), "RemoveAll")
			if rules := k.rules4(); strings.Contains(rules, "MASQ") {
				t.Errorf("left:\n%s", rules)
			}
		})
	}
}

// rules4 prints table nat of IPv4.
func (k *kernel) rules4() string {
	k.Helper()
	if k.b.Kind() == backend.IPTablesNFT {
		return k.sh("nft -s list table ip nat")
	}
	return k.sh("$T -t nat -S")
}
