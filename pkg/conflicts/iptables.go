package conflicts

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/iptables"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// exitAbsent is the exit status of iptables-legacy for a chain that is not there (OTHER_PROBLEM).
const exitAbsent = 1

// xtable reads a table of one variant and family through iptables, whose own text of a rule is the one that operators know.
func xtable(host iptables.Host, kind backend.Kind, family policy.Family, name, chain string, at hook) base {
	b := base{name: name, chain: chain, hook: at, family: family}
	b.place = fmt.Sprintf("%s table %s chain %s", program(kind, family), name, chain)
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
		args, packets, bytes := uncounted(args)
		rules[i] = fromArguments(args, b.hook)
		rules[i].packets, rules[i].bytes = packets, bytes
		rules[i].where = fmt.Sprintf("%s table %s chain %s rule %d", program, b.name, chain, i+1)
	}
	return rules
}

// uncounted takes a rule's counter out of it.
func uncounted(args []string) (rest []string, packets, bytes uint64) {
	i := slices.Index(args, "-c")
	if i < 0 || i+2 >= len(args) {
		return args, 0, 0
	}
	packets, err1 := strconv.ParseUint(args[i+1], 10, 64)
	bytes, err2 := strconv.ParseUint(args[i+2], 10, 64)
	if err1 != nil || err2 != nil {
		return args, 0, 0
	}
	return slices.Delete(slices.Clone(args), i, i+3), packets, bytes
}

// program names the variant as it would be typed.
func program(kind backend.Kind, family policy.Family) string {
	if family == policy.IPv6 {
		return "ip6" + string(kind)[len("ip"):]
	}
	return string(kind)
}
