package nftables

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// interfaceRules let what leaves through an interface that is not meant keep its address: one rule for what fits none of those
// that are meant, and one for each that is excluded. They compare names, so an interface need not exist yet. Where two families share
// the chain there is a rule for each, which tells their counts apart.
func interfaceRules(s policy.Settings, interfaces policy.Interfaces, on []policy.Family) (rules []nfnl.Rule) {
	meant, excluded := interfaces.Split()
	for _, f := range on {
		var family []piece
		if len(on) > 1 {
			family = []piece{isFamily(f)}
		}
		add := func(pieces ...piece) {
			pieces = append(append(family[:len(family):len(family)], pieces...), counter(), giveBack())
			rules = append(rules, newRule(s.Chain, interfaceComment, pieces...))
		}
		if len(meant) > 0 {
			var none []piece
			for _, pattern := range meant {
				none = append(none, output(unix.NFT_CMP_NEQ, pattern))
			}
			add(none...)
		}
		for _, pattern := range excluded {
			add(output(unix.NFT_CMP_EQ, pattern))
		}
	}
	return rules
}

// interfaceName is IFNAMSIZ.
const interfaceName = 16

// output compares the name of the interface through which a packet leaves, or its beginning.
func output(operation uint32, pattern string) piece {
	sign := ""
	if operation == unix.NFT_CMP_NEQ {
		sign = "!= "
	}
	name, wild := strings.CutSuffix(pattern, "*")
	value := []byte(name)
	if !wild {
		value = make([]byte, interfaceName)
		copy(value, name)
	}
	return part(fmt.Sprintf("oifname %s%q", sign, pattern), nfnl.LoadMeta(unix.NFT_META_OIFNAME), nfnl.Compare(operation, value))
}

// outputPatterns reads the patterns back out of a rule that was written, nothing where it compares no names of interfaces.
func outputPatterns(r nfnl.Rule) (patterns policy.Interfaces) {
	for i := 1; i < len(r.Exprs); i++ {
		if !nfnl.SameExprs([][]byte{nfnl.LoadMeta(unix.NFT_META_OIFNAME)}, r.Exprs[i-1:i]) {
			continue
		}
		operation, value := nfnl.Compares(r.Exprs[i])
		name := strings.TrimRight(string(value), "\x00")
		if len(value) < interfaceName {
			name += "*"
		}
		if operation == unix.NFT_CMP_EQ {
			name = "!" + name
		}
		patterns = append(patterns, name)
	}
	return patterns
}
