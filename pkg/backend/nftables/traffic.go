package nftables

import (
	"context"
	"fmt"
	"hash/fnv"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Traffic reads the rules, which are few whatever the number of destinations and pods. What keeps the address is one
// counter per family: where destinations move to another set, its rule counts on, and is another rule. The chains that a map
// leads to have counters of their own, which go with the chain. Prefixes are counted in the sets.
func (b *Backend) Traffic(ctx context.Context, s policy.Settings, byPrefix bool, families ...policy.Family) ([]backend.Traffic, error) {
	var all []backend.Traffic
	err := session(ctx, func(c *nfnl.Conn) error {
		return whileNothingMoves(ctx, func() error {
			return again(ctx, func() (err error) {
				all, err = readTraffic(c, s, byPrefix, families)
				return err
			})
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read counters: %w", err)
	}
	return all, nil
}

func readTraffic(c *nfnl.Conn, s policy.Settings, byPrefix bool, families []policy.Family) (all []backend.Traffic, err error) {
	rules, err := c.Rules(tableName)
	if err != nil {
		return nil, err
	}
	for _, f := range families {
		all = append(all, trafficOf(s, f, len(families), rules)...)
		if !byPrefix {
			continue
		}
		prefixes, err := countPrefixes(c, f, rules)
		if err != nil {
			return nil, err
		}
		for d, counts := range prefixes {
			id := counterID(d.prefix.String(), string(d.verdict), f)
			all = append(all, backend.Traffic{Rule: id, Family: f, Verdict: d.verdict, Prefix: d.prefix, Sum: true, Packets: counts.Packets, Bytes: counts.Bytes})
		}
	}
	return all, nil
}

// prefixCount is what the ranges of a prefix have counted, and the set that they are in.
type prefixCount struct {
	nfnl.Counts
	set string
}

// countPrefixes adds up what the ranges of each prefix have counted.
func countPrefixes(c *nfnl.Conn, f policy.Family, rules []nfnl.Rule) (map[decision]prefixCount, error) {
	all, err := c.Sets(tableName)
	if err != nil {
		return nil, err
	}
	sums := map[decision]prefixCount{}
	for _, s := range inCountedUse(all, f, rules) {
		members, counts, err := readCounts(c, s)
		if err != nil {
			return nil, err
		}
		for _, m := range members {
			d := decisionOf(s, m)
			sums[d] = prefixCount{plus(sums[d].Counts, counts[m.first]), s.Name}
		}
	}
	return sums, nil
}

// trafficOf adds up the rules that are alike, chain by chain. What the shared chain says of a family is there also where there is no such
// rule, so that whoever reads it sees the count begin.
func trafficOf(s policy.Settings, f policy.Family, families int, rules []nfnl.Rule) (all []backend.Traffic) {
	at := map[uint64]int{}
	entry := func(chain, comment string, verdict policy.Verdict) *backend.Traffic {
		id := counterID(chain, comment, f)
		if _, known := at[id]; !known {
			at[id] = len(all)
			all = append(all, backend.Traffic{Rule: id, Family: f, Verdict: verdict})
		}
		return &all[at[id]]
	}
	entry(s.Chain, keepComment, policy.Keep)
	for _, r := range rules {
		verdict := decides(s, r, f, families)
		if verdict == "" {
			continue
		}
		packets, bytes := nfnl.Counted(r)
		t := entry(r.Chain, r.Comment, verdict)
		t.Packets, t.Bytes = t.Packets+packets, t.Bytes+bytes
	}
	return all
}

// counterID is the same for all rules that are alike.
func counterID(chain, comment string, f policy.Family) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(chain + "\n" + comment + "\n" + f.String()))
	return h.Sum64()
}

// decides returns the verdict that a rule's counter counts in a family. In a shared chain of both families the rules that masquerade
// count both, and there are others that count each; the rule for the node's own addresses gets to see IPv4 alone.
func decides(s policy.Settings, r nfnl.Rule, f policy.Family, families int) policy.Verdict {
	is, ok := familyOf(r)
	if r.Chain != s.Chain && !isLed(r.Chain) || ok && is != f {
		return ""
	}
	verdict := verdictOf(r)
	switch {
	case ok && r.Comment == countComment:
		return policy.Masquerade
	case ok || families == 1:
		return verdict
	case verdict == policy.Keep && f == policy.IPv4:
		return verdict
	}
	return ""
}
