// Package conflicts finds what defeats the policy and is not ours to remove: rules and settings of somebody else that
// masquerade pods' traffic which the policy keeps, or that end the search for a rule before ours is asked. It names each with
// its owner, its place and the way out.
//
// It never writes: no rule, no file, not even a table that looking at it would create. It refuses to list a whole table, since
// one native nftables rule makes that fail and five thousand chains make it slow: it reads the chains that packets meet after
// routing, and those that these lead to. It refuses to guess in favour of alarm where it can know: a rule that a pod's packet
// cannot match, by its source, by a mark or by a local destination, is no conflict. Where it cannot know, as with a match
// that it does not understand, a masquerading rule counts and an exempting one does not.
package conflicts

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/iptables"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Conflict is something of somebody else's that masquerades pods' traffic that the policy keeps, or keeps what it masquerades.
type Conflict struct {
	Owner  string `json:"owner"`  // who writes it, "unknown" where nothing tells
	Where  string `json:"where"`  // table, chain and rule, or file and key
	Rule   string `json:"rule"`   // the rule's text, or the key with its value
	WayOut string `json:"wayOut"` // what the operator should do
}

// Query says what to judge by and where to look.
type Query struct {
	Host      iptables.Host // whose iptables programs are used
	Policy    policy.Policy
	Sources   []netip.Addr // the pods' addresses; rules for other sources are none of ours
	ConfDir   string       // holds the conflists; empty: none are read
	OwnChains []string     // further chains of ours, besides those that the policy names
}

// Find looks at the conflists and at the rules of the calling thread's network namespace, in this order. The error joins what
// could not be looked at; what was found elsewhere is returned beside it.
func Find(ctx context.Context, q Query) ([]Conflict, error) {
	q.OwnChains = append(slices.Clone(q.OwnChains), q.Policy.Settings.Chain, q.Policy.Settings.PodsChain())
	found, err := conflists(q.ConfDir)
	errs := []error{err}
	tables, err := q.tables()
	errs = append(errs, err)
	for _, t := range tables {
		w := newWalker(q, t)
		found = append(found, w.walk(ctx)...)
		errs = append(errs, w.errs...)
	}
	return unique(found), errors.Join(errs...)
}

// tables lists the hooked chains to look at: iptables' by variant and family, then the native ones.
func (q Query) tables() ([]table, error) {
	native, err := nativeTables()
	var tables []table
	for _, kind := range []backend.Kind{backend.IPTablesNFT, backend.IPTablesLegacy} {
		for _, family := range q.Policy.Settings.Families() {
			if kind == backend.IPTablesNFT && !native.hasNAT(family) {
				continue
			}
			tables = append(tables, xtable(q.Host, kind, family))
		}
	}
	hooked, hookErr := native.hooked()
	for _, t := range hooked {
		for _, family := range q.Policy.Settings.Families() {
			if t.speaks(family) {
				tables = append(tables, t.of(family))
			}
		}
	}
	return tables, errors.Join(err, hookErr)
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
