package conflicts

import (
	"context"
	"errors"
	"fmt"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/iptables"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// table is where a search starts: a chain that packets meet after routing, and how to read the chains beside it.
type table struct {
	name   string
	chain  string
	family policy.Family
	// read returns the rules of one chain in their order; none for a chain that is not there.
	read func(ctx context.Context, chain string) ([]rule, error)
}

const (
	natTable    = "nat"
	postrouting = "POSTROUTING"
)

// exitAbsent is the exit status of iptables-legacy-restore for a chain that is not there (OTHER_PROBLEM).
const exitAbsent = 1

// xtable reads table nat of one variant and family through iptables, whose own text of a rule is the one that operators know.
func xtable(host iptables.Host, kind backend.Kind, family policy.Family) table {
	return table{
		name: natTable, chain: postrouting, family: family,
		read: func(ctx context.Context, chain string) ([]rule, error) {
			listed, err := host.List(ctx, kind, family, chain)
			if err == nil {
				return fromListing(program(kind, family), chain, listed), nil
			}
			// iptables-nft cannot print a chain with a native rule in it; the kernel can. Where a variant has nothing but what
			// iptables wrote, a refusal means that there is no such chain.
			if kind == backend.IPTablesNFT && ctx.Err() == nil {
				return readNative(nftTable(family, natTable), chain)
			}
			var refused *iptables.ExitError
			if errors.As(err, &refused) && refused.Status == exitAbsent {
				return nil, nil
			}
			return nil, err
		},
	}
}

func fromListing(program, chain string, listed [][]string) []rule {
	rules := make([]rule, len(listed))
	for i, args := range listed {
		rules[i] = fromArguments(args)
		rules[i].where = fmt.Sprintf("%s table %s chain %s rule %d", program, natTable, chain, i+1)
	}
	return rules
}

// program names the variant as it would be typed.
func program(kind backend.Kind, family policy.Family) string {
	if family == policy.IPv6 {
		return "ip6" + string(kind)[len("ip"):]
	}
	return string(kind)
}
