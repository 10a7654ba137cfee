package iptables

import (
	"strconv"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// What is appended to the shared chain's name makes the names of the chains beside it, in at most five characters
// (policy.MaxChain). All but the pods' chain are there only where the policy or a pod needs them.
const (
	interfacesSuffix = "-OUT"  // the destinations, behind the names of several output interfaces
	groupSuffix      = "-E"    // and a number: what an egress group does
	sourcesSuffix    = "-SRC"  // pods that chose their source address
	nodeSuffix       = "-NODE" // what is no attached pod's traffic
)

func interfacesChain(s policy.Settings) string { return s.Chain + interfacesSuffix }

func groupChain(s policy.Settings, number int) string {
	return s.Chain + groupSuffix + strconv.Itoa(number)
}

func sourcesChain(s policy.Settings) string { return s.Chain + sourcesSuffix }

func nodeChain(s policy.Settings) string { return s.Chain + nodeSuffix }

// isGroupChain reports whether a chain is the one of an egress group, of this policy or of a former one.
func isGroupChain(s policy.Settings, name string) bool {
	digits, ok := strings.CutPrefix(name, s.Chain+groupSuffix)
	number, err := strconv.Atoi(digits)
	return ok && err == nil && number >= 1 && number <= policy.MaxEgress && groupChain(s, number) == name
}

// IsOwnChain reports whether a name is that of a chain that a policy with this shared chain may have.
func IsOwnChain(s policy.Settings, name string) bool {
	switch name {
	case s.Chain, s.PodsChain(), interfacesChain(s), sourcesChain(s), nodeChain(s):
		return true
	}
	return isGroupChain(s, name)
}

// isDeciding reports whether packets that the policy governs come to a chain for a decision.
func isDeciding(s policy.Settings, name string) bool {
	return IsOwnChain(s, name) && name != s.PodsChain() && name != nodeChain(s)
}

// groupName is how comments call an egress group.
func groupName(number int) string { return groupComment + strconv.Itoa(number) }

const groupComment = "ip-masq-agent: egress group "
