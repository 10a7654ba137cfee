package iptables_test

import (
	"context"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// copies counts the rules that name a pod's owner.
func (k *kernel) copies(id string) int {
	k.Helper()
	return strings.Count(k.sh("$T -t nat -S IP-MASQ-AGENT-PODS; $T6 -t nat -S IP-MASQ-AGENT-PODS"), id)
}

// TestAttachMakesNoCopy: where the node's records are lost, an ADD that comes again finds its rules. A first one starts one
// process for each family.
func TestAttachMakesNoCopy(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			k := newKernel(t, kind)
			k.settle(k.state(0, pod(1)))
			if started := k.processes(func() { k.attach(pod(2)) }); started != 2 {
				t.Errorf("the first Attach started %d processes, want one for each family", started)
			}
			k.attach(pod(2))
			k.attach(pod(1))
			for _, p := range []string{string(pod(1).ID()), string(pod(2).ID())} {
				if n := k.copies(p); n != 2 {
					t.Errorf("%d rules of %s, want one in each family", n, p)
				}
			}
		})
	}
}

// TestDetachLeavesNone: however often an owner's rules stand there, with its record, with another's and without.
func TestDetachLeavesNone(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			k := newKernel(t, kind)
			k.settle(k.state(0, pod(1), pod(2)))
			bare := k.rules()
			for _, known := range [][]ruleset.Pod{nil, ruleset.Pods(pod(3)), ruleset.Pods(pod(2)), ruleset.Pods(pod(3))[:1]} {
				k.attach(pod(3))
				k.sh(`for t in "$T" "$T6"; do for i in 1 2; do
$t -t nat -S IP-MASQ-AGENT-PODS | grep ` + string(pod(3).ID()) + ` | head -1 | sed "s/^/$t -t nat /" | sh
done; done`)
				if n := k.copies(string(pod(3).ID())); n != 6 {
					t.Fatalf("%d rules, want three in each family", n)
				}
				k.detach(pod(3), known...)
				if after := k.rules(); after != bare {
					t.Errorf("with %v on record, Detach left\n%s\ninstead of\n%s", known, after, bare)
				}
			}
		})
	}
}

// TestDetachCost: iptables-nft's rules go without a process.
func TestDetachCost(t *testing.T) {
	for _, kind := range kinds {
		k := newKernel(t, kind)
		k.settle(k.state(0, pod(1), pod(2)))
		want := map[bool]int{true: 0, false: 2}[kind == kinds[0]]
		if started := k.processes(func() { k.detach(pod(1), ruleset.Pods(pod(1))...) }); started != want {
			t.Errorf("%s: Detach started %d processes, want %d", kind, started, want)
		}
	}
}

// TestReadingIsCheap: a chain that this process has seen is not listed again while it says the same, whatever else changes.
func TestReadingIsCheap(t *testing.T) {
	const prefixes = 500
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			k := newKernel(t, kind)
			want := k.state(prefixes, pod(1))
			k.settle(want)
			k.sh("$T -t nat -N FOREIGN; $T -t filter -A FORWARD -j ACCEPT")
			k.observe()
			counted := func(what string, limit int, call func()) {
				t.Helper()
				if started := k.processes(call); started > limit {
					t.Errorf("%s started %d processes, want at most %d", what, started, limit)
				}
			}
			counted("Observe of nothing new", 0, func() { k.observe() })
			if kind != kinds[0] {
				return
			}
			k.attach(pod(2)) // The chain of the prefixes is as it was, the pods' chain is not.
			counted("Observe after an Attach", 4, func() { k.observe() })
			for range 2 {
				k.sh("$T -t nat -F IP-MASQ-AGENT")
				counted("Observe of a flushed chain", 0, func() { k.observe() })
				counted("its repair", 1, func() { k.apply(k.state(prefixes, pod(1), pod(2))) })
			}
			counted("Observe of what was repaired", 0, func() { k.observe() })
		})
	}
}

// TestVerifyStartsFew: CHECK lists the pods' chains alone, and STATUS reads the shared chain without a process.
func TestVerifyStartsFew(t *testing.T) {
	k := newKernel(t, kinds[0])
	k.settle(k.state(0, pod(1)))
	if started := k.processes(func() {
		k.must(k.in(func(ctx context.Context) error {
			_, err := k.b.Chain(ctx, k.s, policy.IPv4)
			return err
		}), "Chain")
	}); started != 0 {
		t.Errorf("Chain started %d processes", started)
	}
	k.b.Forget()
	if started := k.processes(func() {
		k.must(k.in(func(ctx context.Context) error { return k.b.Verify(ctx, k.state(0).Only(ruleset.Pods(pod(1)))) }), "Verify")
	}); started > 4 {
		t.Errorf("Verify started %d processes, want at most two for each family", started)
	}
}
