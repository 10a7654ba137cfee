package nftables

import (
	"context"
	"fmt"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Counters reads the rules of the shared chain that concern the family. They count by verdict and not by prefix: the set of
// destinations holds ranges that are folded of several prefixes, so that a range belongs to none of them, and a counter in each
// element would cost memory for every processor and make elements differ that are equal.
func (b *Backend) Counters(ctx context.Context, s policy.Settings, family policy.Family) ([]backend.Counter, error) {
	var counters []backend.Counter
	err := session(ctx, func(c *nfnl.Conn) error {
		rules, err := ownRules(ctx, c)
		for _, r := range rules[s.Chain] {
			if f, ok := familyOf(r); ok && f != family {
				continue
			}
			packets, bytes := nfnl.Counted(r)
			counters = append(counters, backend.Counter{Rule: describe(s, r), Verdict: verdictOf(r), Packets: packets, Bytes: bytes})
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read %s counters: %w", family, err)
	}
	return counters, nil
}

func verdictOf(r nfnl.Rule) policy.Verdict {
	switch r.Comment {
	case keepComment, localComment:
		return policy.Keep
	case masqueradeComment:
		return policy.Masquerade
	}
	return ""
}

// describe finds the text of a rule that was read. One that is not ours is named by what it is made of.
func describe(s policy.Settings, r nfnl.Rule) string {
	for i := range 2 {
		for _, known := range chainRules(s, families, map[policy.Family]string{policy.IPv4: keepSets(policy.IPv4)[i], policy.IPv6: keepSets(policy.IPv6)[i]}) {
			if sameRule(known, r) {
				return known.Text
			}
		}
	}
	return expressions(r)
}

// expressions names what a rule is made of, for one whose text is not known.
func expressions(r nfnl.Rule) string {
	var names []string
	for _, expr := range r.Exprs {
		names = append(names, nfnl.ExprName(expr))
	}
	return "a rule of " + strings.Join(names, ", ")
}
