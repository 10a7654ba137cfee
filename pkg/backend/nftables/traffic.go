package nftables

import (
	"context"
	"fmt"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Traffic reads the shared chain, whose rules are few whatever the number of destinations and pods. What keeps the address is one
// counter per family: where destinations move to another set, its rule counts on, and is another rule.
func (b *Backend) Traffic(ctx context.Context, s policy.Settings, families ...policy.Family) ([]backend.Traffic, error) {
	var rules []nfnl.Rule
	err := session(ctx, func(c *nfnl.Conn) error {
		return again(ctx, func() (err error) {
			rules, err = c.ChainRules(tableName, s.Chain)
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read counters: %w", err)
	}
	var all []backend.Traffic
	for _, f := range families {
		for i, verdict := range verdicts {
			t := backend.Traffic{Rule: uint64(f)<<1 | uint64(i), Family: f, Verdict: verdict}
			for _, r := range rules {
				if decides(r, f, verdict, len(families)) {
					packets, bytes := nfnl.Counted(r)
					t.Packets, t.Bytes = t.Packets+packets, t.Bytes+bytes
				}
			}
			all = append(all, t)
		}
	}
	return all, nil
}

var verdicts = []policy.Verdict{policy.Keep, policy.Masquerade}

// decides reports whether a rule's counter is about a family and a verdict. In a chain of both families the rules that masquerade
// count both, and there are others that count each; the rule for the node's own addresses gets to see IPv4 alone.
func decides(r nfnl.Rule, f policy.Family, verdict policy.Verdict, families int) bool {
	of := []string{keepComment, localComment}
	if verdict == policy.Masquerade {
		of = []string{masqueradeComment}
		if families > 1 {
			of = []string{countComment}
		}
	}
	if !slices.Contains(of, r.Comment) {
		return false
	}
	is, ok := familyOf(r)
	return is == f || !ok && (families == 1 || f == policy.IPv4)
}
