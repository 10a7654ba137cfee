package iptables

import (
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// The comments of the rules about output interfaces.
const (
	excludedComment = "ip-masq-agent: what leaves through this interface keeps its source"
	othersComment   = "ip-masq-agent: what leaves through another interface keeps its source"
	meantComment    = "ip-masq-agent: what leaves through this interface is subject to the policy"
)

// interfaceRules stand at the head of the shared chain. Interfaces that are left out return from it, and so does every interface
// but the one that is meant. A rule has room for one name, so that several that are meant cannot be said in this way: then each
// leads (-g) to a chain of its own that has the destinations, and the shared chain has nothing else, so that it can still be read
// from its top, and no destination stands there twice, which repeating the destinations for each interface would take.
func interfaceRules(s policy.Settings, interfaces policy.Interfaces) (head []rule, several bool) {
	meant, excluded := interfaces.Split()
	to := func(what rule, text, how, where string) {
		head = append(head, join(what, comment(text), rule{how, where}))
	}
	for _, pattern := range excluded {
		to(rule{"-o", device(pattern)}, excludedComment, "-j", "RETURN")
	}
	if several = len(meant) > 1; several {
		for _, pattern := range meant {
			to(rule{"-o", device(pattern)}, meantComment, "-g", interfacesChain(s))
		}
		to(nil, othersComment, "-j", "RETURN") // the end of the chain would not count
	} else if len(meant) == 1 {
		to(rule{"!", "-o", device(meant[0])}, othersComment, "-j", "RETURN")
	}
	return head, several
}

// device is a pattern in the words of iptables, where a plus sign stands for any end of a name.
func device(pattern string) string {
	if stem, wild := strings.CutSuffix(pattern, "*"); wild {
		return stem + "+"
	}
	return pattern
}
