package iptables

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Counters lists the shared chain and the chains that it leads to verbosely, which adds "-c PACKETS BYTES" to each rule. A rule
// that leads to one of them decides nothing, and is left out.
func (b *Backend) Counters(ctx context.Context, s policy.Settings, family policy.Family) ([]backend.Counter, error) {
	if untouched(b.kind, family, natTable) {
		return nil, nil
	}
	var counters []backend.Counter
	names := []string{s.Chain}
	for i := 0; i < len(names); i++ {
		listed, err := b.list(ctx, family, natTable, names[i])
		if err != nil {
			return nil, fmt.Errorf("read %s counters: %w", family, err)
		}
		for _, r := range listed {
			c, to := counterOf(family, r), r.target()
			c.Part = isGroupChain(s, to) // whose rules count as well
			if c.Part || !isDeciding(s, to) {
				counters = append(counters, c)
			}
			if isDeciding(s, to) && !slices.Contains(names, to) {
				names = append(names, to)
			}
		}
	}
	return counters, nil
}

// counterOf takes the counters out of a rule, and reads what the rule decides.
func counterOf(family policy.Family, r rule) backend.Counter {
	c := backend.Counter{Verdict: verdictOf(r)}
	if verdict := verdictOfPrefix(r.target(), r.value("--comment")); verdict != "" {
		c.Verdict, c.Prefix = verdict, wholeOf(family)
		if prefix, err := netip.ParsePrefix(r.value("-d")); err == nil {
			c.Prefix = prefix
		}
	}
	if i := slices.Index(r, "-c"); i >= 0 && i+2 < len(r) {
		c.Packets, _ = strconv.ParseUint(r[i+1], 10, 64)
		c.Bytes, _ = strconv.ParseUint(r[i+2], 10, 64)
	}
	c.Rule = withoutCounters(r).String()
	return c
}

// withoutCounters takes -c PACKETS BYTES out of a rule.
func withoutCounters(r rule) rule {
	if i := slices.Index(r, "-c"); i >= 0 && i+2 < len(r) {
		return slices.Delete(slices.Clone(r), i, i+3)
	}
	return r
}

func verdictOf(r rule) policy.Verdict {
	return verdictOfTarget(r.target(), r.value("--comment"))
}

// wholeOf is the prefix of rules that name none.
func wholeOf(family policy.Family) netip.Prefix {
	return netip.PrefixFrom(family.Multicast().Addr(), 0).Masked()
}

// verdictOfPrefix reads what a rule of a prefix decides, nothing for a rule that is not about a prefix. Those of an egress group lead to its
// chain.
func verdictOfPrefix(target, comment string) policy.Verdict {
	switch {
	case target == "RETURN" && comment == keepComment:
		return policy.Keep
	case target == "MASQUERADE" && comment == exceptionComment:
		return policy.Masquerade
	case verdictOfTarget(target, comment) == "" && strings.HasPrefix(comment, groupComment):
		return policy.Translate
	}
	return ""
}

// verdictOfTarget reads what a target does, with the rule's comment for what stands for a drop.
func verdictOfTarget(target, comment string) policy.Verdict {
	switch target {
	case "RETURN":
		return policy.Keep
	case "MASQUERADE":
		return policy.Masquerade
	case "NFQUEUE":
		return policy.Drop
	case "SNAT":
		if strings.HasSuffix(comment, discardComment) {
			return policy.Drop
		}
		return policy.Translate
	}
	return ""
}
