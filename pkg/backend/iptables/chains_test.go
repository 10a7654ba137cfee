package iptables_test

import (
	"context"
	"slices"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// TestChains reads as: a rule of POSTROUTING, and the shared chain that it gives away. Every form of every agent counts, and
// nobody else's comment does.
func TestChains(t *testing.T) {
	const all = "ip-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom OTHER chain"
	tests := []struct {
		rule string
		want []string
	}{
		{`-m comment --comment "ip-masq-agent: pods" -j OTHER-PODS`, []string{"OTHER"}},
		{`-m comment --comment "` + all + `" -m addrtype ! --dst-type LOCAL -j OTHER`, []string{"OTHER"}},
		{`-m comment --comment '"` + all + `"' -m addrtype ! --dst-type LOCAL -j OTHER`, []string{"OTHER"}},
		{`-m comment --comment "ip-masq-agent: is what this says" -j OTHER`, nil},
		{`-m comment --comment "ip-masq-agent: pods" -j OTHER`, nil},
		{`-m comment --comment "` + all + `" -j OTHER-PODS`, nil},
		{`-j OTHER`, nil},
		{`-m comment --comment "ip-masq-agent: pods" -j RETURN`, nil},
	}
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			k := newKernel(t, kind)
			chains := func() (found []string) {
				k.must(k.in(func(ctx context.Context) (err error) {
					found, err = k.b.Chains(ctx, policy.IPv4)
					return err
				}), "Chains")
				return found
			}
			if started := k.processes(func() { chains() }); started != 0 {
				t.Errorf("Chains of nothing started %d processes", started)
			}
			if tables := k.sh("cat /proc/net/ip_tables_names; nft list tables"); tables != "" {
				t.Errorf("Chains made %s", tables)
			}
			k.sh("$T -t nat -N OTHER; $T -t nat -N OTHER-PODS")
			for _, test := range tests {
				k.sh("$T -t nat -F POSTROUTING; $T -t nat -A POSTROUTING " + test.rule)
				if got := chains(); !slices.Equal(got, test.want) {
					t.Errorf("%s: %q, want %q", test.rule, got, test.want)
				}
			}
		})
	}
}
