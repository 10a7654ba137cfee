package conflicts

import (
	"context"
	"errors"
	"fmt"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/iptables"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// exitAbsent is the exit status of iptables-legacy for a chain that is not there (OTHER_PROBLEM).
const exitAbsent = 1

// xtable reads a table of one variant and family through iptables, whose own text of a rule is the one that operators know.
func xtable(host iptables.Host, kind backend.Kind, family policy.Family, name, chain string, at hook) base {
	b := base{name: name, chain: chain, hook: at, family: family}
	b.read = func(ctx context.Context, chain string) ([]rule, error) {
		listed, err := host.List(ctx, kind, family, name, chain)
		if err == nil {
			return b.fromListing(program(kind, family), chain, listed), nil
		}
		// iptables-nft cannot print a chain with a native rule in it; the kernel can. Where a variant has nothing but what
		// iptables wrote, a refusal means that there is no such chain.
		if kind == backend.IPTablesNFT && ctx.Err() == nil {
			return b.readNative(nativeFamily(family), chain)
		}
		var refused *iptables.ExitError
		if errors.As(err, &refused) && refused.Status == exitAbsent {
			return nil, nil
		}
		return nil, err
	}
	return b
}

func (b base) fromListing(program, chain string, listed [][]string) []rule {
	rules := make([]rule, len(listed))
	for i, args := range listed {
		rules[i] = fromArguments(args, b.hook)
		rules[i].where = fmt.Sprintf("%s table %s chain %s rule %d", program, b.name, chain, i+1)
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
