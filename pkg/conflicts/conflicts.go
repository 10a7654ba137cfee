// Package conflicts finds what defeats the policy and is not managed by ip-masq: rules and settings of other software that
// translate pods' traffic which the policy keeps or for which it chooses an address, that end the search for a rule before the
// agent's is asked, or that keep pods' connections from being tracked and so from being translated. It names each with its owner, its place and the fix.
//
// It asks what would happen to the first packet of a connection from a pod to a destination outside, without a mark, whose
// destination was not translated (as kube-proxy does for services) and that is not encrypted: groups of such packets go through
// the rules one by one, and each rule divides them by what it matches. The answer is certain where every condition on the way is
// understood. A condition that is not leaves the packets behind it in doubt, and doubtful packets raise no alarm: a warning that
// is wrong is worse than one that is missing, since it stays until somebody disables what works. Each base chain is judged as if
// the others were not there.
//
// It never writes: no rule, no file, not even a table that looking at it would create. It refuses to list a whole table, since
// one native nftables rule makes that fail and five thousand chains make it slow: it reads the chains that the packets meet, and
// those that these lead to. Sets are asked, and listed only where they are small.
//
// nf_tables is read by pkg/nfnl, like everywhere in this project; interfaces, routes and ipsets by vishvananda/netlink, which
// pkg/flows needs as well. Those are the two netlink libraries in the agent. google/nftables would be a third that does what
// pkg/nfnl does: it knows neither verdict maps with intervals nor a bound for what it reads.
package conflicts

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/backend/iptables"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Conflict is a rule or a setting of other software that contradicts the policy.
type Conflict struct {
	Owner string `json:"owner"` // who writes it, "unknown" where nothing tells
	Where string `json:"where"` // table, chain and rule, or file and key
	Rule  string `json:"rule"`  // the rule's text, or the key with its value
	Fix   string `json:"fix"`   // what the operator should do
}

// Query says what to judge by and where to look.
type Query struct {
	Host      iptables.Host // whose iptables programs are used
	Policy    policy.Policy
	Sources   []netip.Addr // the pods' addresses
	ConfDir   string       // holds the conflists; empty: none are read
	OwnChains []string     // further chains managed by ip-masq, besides those that the policy names
}

// Find looks at the conflists and at the rules of the calling thread's network namespace, in this order. The error joins what
// could not be looked at; what was found elsewhere is returned beside it.
func Find(ctx context.Context, q Query) ([]Conflict, error) {
	q.OwnChains = append(slices.Clone(q.OwnChains), q.Policy.Settings.Chain, q.Policy.Settings.PodsChain())
	found, err := conflists(q.ConfDir)
	errs := []error{err}
	bases, err := q.bases(false, q.Policy.Settings.Families()...)
	errs = append(errs, err)
	nodes := map[policy.Family]*kernelNode{policy.IPv4: newKernelNode(policy.IPv4), policy.IPv6: newKernelNode(policy.IPv6)}
	for _, b := range bases {
		w := newWalker(q, b, nodes[b.family])
		found = append(found, w.walk(ctx)...)
		errs = append(errs, w.errs...)
	}
	return unique(found), errors.Join(errs...)
}

// unique drops what was found for both families of one table, and keeps the order.
func unique(found []Conflict) []Conflict {
	seen := map[Conflict]bool{}
	return slices.DeleteFunc(found, func(c Conflict) bool {
		twice := seen[c]
		seen[c] = true
		return twice
	})
}
