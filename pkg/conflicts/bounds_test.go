package conflicts

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// TestReadsOnlyWhatPodsReach names every chain that is read.
func TestReadsOnlyWhatPodsReach(t *testing.T) {
	tests := []struct {
		name, rules string
		want        []string
	}{
		{"chains of other sources", "-A POSTROUTING -s 10.88.0.5/32 -j A\n-A POSTROUTING -m mark --mark 0x1 -j B\n-A POSTROUTING -j C\n-A D -j MASQUERADE", []string{"POSTROUTING", "C"}},
		{"what stands behind the end", "-A POSTROUTING -j A\n-A POSTROUTING -j ACCEPT\n-A POSTROUTING -j B", []string{"POSTROUTING", "A"}},
		{"ours", root, []string{"POSTROUTING"}},
		{"targets that are no chains", "-A POSTROUTING -j LOG\n-A POSTROUTING -j NFLOG --nflog-group 3\n-A POSTROUTING -j MARK --set-xmark 0x1/0x1", []string{"POSTROUTING"}},
		{"one chain for the pods of a network", bridge("net", "10.244.0.5", "10.244.0.6", "10.244.0.5"), []string{"POSTROUTING", "CNI-000000000000000000000000"}},
		{"a loop", "-A POSTROUTING -j A\n-A A -j A", append([]string{"POSTROUTING"}, slices.Repeat([]string{"A"}, maxDepth)...)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := parse(test.rules)
			search(t, query(), policy.IPv4, l)
			if diff := cmp.Diff(test.want, l.reads); diff != "" {
				t.Errorf("chains read (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTooManyChainsIsAnError(t *testing.T) {
	var rules strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&rules, "-A POSTROUTING -j X%d\n", i)
	}
	rules.WriteString("-A POSTROUTING -j MASQUERADE\n")
	l := parse(rules.String())
	got := search(t, query(), policy.IPv4, l)
	want := []string{"chain POSTROUTING leads to more than 64 chains: the others were not looked at"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("conflicts and errors (-want +got):\n%s", diff)
	}
	if len(l.reads) != 1+maxChains {
		t.Errorf("%d chains were read", len(l.reads))
	}
}

// TestErrorsBesideFindings has a chain that cannot be read, and may do anything to the packets, between two rules that can.
func TestErrorsBesideFindings(t *testing.T) {
	broken := errors.New("broken")
	l := parse("-A POSTROUTING -p udp -j MASQUERADE\n-A POSTROUTING -s 10.244.0.5/32 -j X\n-A POSTROUTING -p tcp -j MASQUERADE\n" +
		"-A POSTROUTING -s 10.244.0.6/32 -j ACCEPT\n-A POSTROUTING -j MASQUERADE")
	b := l.base(policy.IPv4)
	read := b.read
	b.read = func(ctx context.Context, chain string) ([]rule, error) {
		if chain == "X" {
			return nil, broken
		}
		return read(ctx, chain)
	}
	w := newWalker(query(), b, fakeNode{})
	var rules []string
	for _, c := range w.walk(t.Context()) {
		rules = append(rules, c.Rule)
	}
	if diff := cmp.Diff([]string{"-p udp -j MASQUERADE", "-p tcp -j MASQUERADE"}, rules); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	if !slices.ContainsFunc(w.errs, func(err error) bool { return errors.Is(err, broken) }) {
		t.Errorf("errors %v", w.errs)
	}
}

// TestThousandsOfChains searches a node of five thousand services: none of their chains is read.
func TestThousandsOfChains(t *testing.T) {
	for _, restore := range []string{"iptables-nft-restore", "iptables-legacy-restore"} {
		t.Run(restore, func(t *testing.T) {
			netnstest.Require(t, restore)
			space := netnstest.NewSpace(t, "host")
			var rules strings.Builder
			rules.WriteString("*nat\n")
			for i := range 5000 {
				fmt.Fprintf(&rules, ":KUBE-SVC-%d -\n-A KUBE-SVC-%d -j MASQUERADE\n", i, i)
			}
			rules.WriteString("-A POSTROUTING -j MASQUERADE\nCOMMIT\n")
			load(t, space, rules.String(), restore, "--noflush")
			start := time.Now()
			if found := mustFind(t, space, query()); len(found) != 1 {
				t.Errorf("found %v", found)
			}
			t.Logf("took %s", time.Since(start))
		})
	}
}

// largeQuery has ten thousand destinations that are kept and a thousand pods, and as many rules that other software made of them.
func largeQuery() (Query, string) {
	var rules strings.Builder
	q := query()
	q.Policy.NonMasquerade = nil
	for i := range 10_000 {
		prefix := fmt.Sprintf("100.%d.%d.0/24", i>>8, i&0xff)
		q.Policy.NonMasquerade = append(q.Policy.NonMasquerade, prefixes(prefix)...)
		fmt.Fprintf(&rules, "-A POSTROUTING -d %s -j RETURN\n", prefix)
	}
	for i := range 1000 {
		q.Sources = append(q.Sources, addrs(fmt.Sprintf("10.245.%d.%d", i>>8, i&0xff))...)
		fmt.Fprintf(&rules, "-A POSTROUTING -s 10.246.%d.%d/32 -j MASQUERADE\n", i>>8, i&0xff)
	}
	rules.WriteString("-A POSTROUTING -d 169.254.0.0/16 -j RETURN\n-A POSTROUTING -j MASQUERADE\n")
	return q, rules.String()
}

func TestLargePolicy(t *testing.T) {
	q, rules := largeQuery()
	if got := search(t, q, policy.IPv4, parse(rules)); got != nil {
		t.Errorf("found %v", got)
	}
}

func BenchmarkLargePolicy(b *testing.B) {
	q, rules := largeQuery()
	l := parse(rules)
	for b.Loop() {
		newWalker(q, l.base(policy.IPv4), fakeNode{}).walk(b.Context())
	}
}

// TestTooManyGroupsIsAnError has marks of 20 bits, each set for some packets: a million groups of packets.
func TestTooManyGroupsIsAnError(t *testing.T) {
	rules := "-A POSTROUTING -p udp -j MASQUERADE\n"
	for i := range 20 {
		rules += fmt.Sprintf("-A POSTROUTING -p tcp -j MARK --set-xmark %#x/0x0\n", 1<<i)
	}
	rules += "-A POSTROUTING -j MASQUERADE\n"
	got := search(t, query(), policy.IPv4, parse(rules))
	want := []string{"unknown: POSTROUTING 1", "chain POSTROUTING tells too many packets apart: the rest of it was not looked at"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("conflicts and errors (-want +got):\n%s", diff)
	}
}
