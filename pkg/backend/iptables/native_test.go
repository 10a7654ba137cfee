package iptables_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// natives are rules that only nft can write. iptables prints the first as if it had no match, and gives up at the second.
var natives = map[string]string{
	"a set's look-up":    "ip daddr @others return",
	"a random number":    "numgen random mod 2 0 accept",
	"a random number v6": "numgen random mod 2 0 accept",
}

// families of the tables that natives go into.
func tableOf(name string) string {
	if strings.HasSuffix(name, "v6") {
		return "ip6 nat"
	}
	return "ip nat"
}

// TestNativeRuleInOurChains: what stands in our own chains is ours to replace, so one native rule must not keep the chain from
// being repaired, a pod from being added or from going.
func TestNativeRuleInOurChains(t *testing.T) {
	for name, native := range natives {
		for _, chain := range []string{"IP-MASQ-AGENT", "IP-MASQ-AGENT-PODS"} {
			t.Run(name+" in "+chain, func(t *testing.T) {
				k := newKernel(t, backend.IPTablesNFT)
				want := k.state(0, pod(1), pod(2))
				k.settle(want)
				before := k.rules()
				k.sh("nft add set ip nat others '{ type ipv4_addr; }'; nft insert rule " + tableOf(name) + " " + chain + " " + native)
				k.attach(pod(3))
				k.must(k.in(func(ctx context.Context) error { return k.b.Verify(ctx, k.state(0).Only(ruleset.Pods(pod(1), pod(3)))) }), "Verify")
				if pods := k.observe().Pods(); len(pods) != 6 {
					t.Errorf("observed %d pods, want 3 in each family: %v", len(pods), pods)
				}
				k.detach(pod(3))
				if !k.apply(want) {
					t.Error("Apply found nothing to do")
				}
				k.sh("nft delete set ip nat others") // in use if the rule were still there
				if after := k.rules(); after != before {
					t.Errorf("repaired, there is\n%s\ninstead of\n%s", after, before)
				}
				if k.apply(want) {
					t.Error("a second Apply wrote again")
				}
			})
		}
	}
}

// TestNativeRuleKeepsChain: the plugin leaves a filled chain to the agent, but not one that nobody can read.
func TestNativeRuleKeepsChain(t *testing.T) {
	k := newKernel(t, backend.IPTablesNFT)
	want := k.state(0, pod(1))
	k.settle(want)
	before := k.rules()
	k.sh("nft insert rule ip nat IP-MASQ-AGENT numgen random mod 2 0 accept")
	want.KeepChain = true
	k.settle(want)
	if after := k.rules(); after != before {
		t.Errorf("repaired, there is\n%s\ninstead of\n%s", after, before)
	}
}

// TestNativeRuleInPostrouting: other software's rules stay, ahead of ours, in whatever form, and ours are found behind them.
func TestNativeRuleInPostrouting(t *testing.T) {
	for name, native := range natives {
		t.Run(name, func(t *testing.T) {
			k := newKernel(t, backend.IPTablesNFT)
			k.sh("$T -t nat -A POSTROUTING -d 203.0.113.9 -j ACCEPT; $T6 -t nat -A POSTROUTING -d 2001:db8::9 -j ACCEPT; nft add set ip nat others '{ type ipv4_addr; }'")
			bare := k.rules()
			k.sh("nft insert rule " + tableOf(name) + " POSTROUTING " + native)
			foreign := k.rules()
			want := k.state(0, pod(1))
			k.settle(want)
			right := k.rules()
			k.sh(`$T -t nat -A POSTROUTING -m comment --comment "ip-masq-agent: pods" -j IP-MASQ-AGENT-PODS
$T -t nat -A POSTROUTING -m comment --comment '"ip-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom IP-MASQ-AGENT chain"' -m addrtype ! --dst-type LOCAL -j IP-MASQ-AGENT`)
			k.settle(want)
			if after := k.rules(); after != right {
				t.Errorf("with copies of the root rule taken out, there is\n%s\ninstead of\n%s", after, right)
			}
			for _, family := range k.s.Families() {
				k.must(k.in(func(ctx context.Context) error { return k.b.Remove(ctx, k.s, family) }), "Remove")
			}
			if after := k.rules(); after != foreign {
				t.Errorf("removed, there is\n%s\ninstead of\n%s", after, foreign)
			}
			if !strings.Contains(bare, "203.0.113.9") || foreign == bare {
				t.Errorf("the test's own rules are not there:\n%s", foreign)
			}
		})
	}
}

// TestRemoveKeepsNative: cleaning up leaves other software's rule in our chain, and names it.
func TestRemoveKeepsNative(t *testing.T) {
	k := newKernel(t, backend.IPTablesNFT)
	k.settle(k.state(0, pod(1)))
	k.sh("nft add rule ip nat IP-MASQ-AGENT numgen random mod 2 0 accept")
	err := k.in(func(ctx context.Context) error { return k.b.RemoveAll(ctx) })
	var kept *backend.Kept
	if !errors.As(err, &kept) || !strings.Contains(err.Error(), "nft list chain ip nat IP-MASQ-AGENT") {
		t.Errorf("RemoveAll: %v", err)
	}
	after := k.sh("nft -s list table ip nat")
	if strings.Contains(after, "masquerade") || strings.Contains(after, "PODS") || !strings.Contains(after, "numgen") {
		t.Errorf("left:\n%s", after)
	}
}
