package conflicts

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// The bounds of a search. Known software is at most four chains deep (firewalld), and leads to fewer than twenty chains beside
// those of single pods, of which one for each network is read.
const (
	maxDepth  = 4
	maxChains = 64
)

// walker goes through the rules of one table as a pod's packet would.
type walker struct {
	table
	traffic traffic
	own     []string
	found   []finding
	errs    []error
	chains  int
	perPod  map[string]int // networks whose chain was read, with what was found there or -1
}

// finding is a conflict and how many more of the same owner and way out there are in the table.
type finding struct {
	Conflict
	more int
}

func newWalker(q Query, t table) *walker {
	return &walker{table: t, traffic: newTraffic(q, t.family), own: q.OwnChains, perPod: map[string]int{}}
}

func (w *walker) walk(ctx context.Context) []Conflict {
	rules, err := w.read(ctx, w.chain)
	if err != nil {
		w.errs = append(w.errs, err)
	}
	w.follow(ctx, w.chain, rules, w.traffic.scope(slices.ContainsFunc(rules, w.ours)), 0)
	all := make([]Conflict, len(w.found))
	for i, f := range w.found {
		all[i] = f.Conflict
		if f.more > 0 {
			all[i].Where += fmt.Sprintf(" (and %d more)", f.more)
		}
	}
	return all
}

func (w *walker) ours(r rule) bool { return r.action == jumps && slices.Contains(w.own, r.chain) }

// follow asks one rule after the other, until no packet is left to ask about.
func (w *walker) follow(ctx context.Context, chain string, rules []rule, s scope, depth int) {
	for _, r := range rules {
		if w.ours(r) {
			s.ahead = false
			continue
		}
		matched, ok := s.narrow(r.match)
		if !ok || r.match.family != 0 && r.match.family != w.family {
			continue
		}
		switch r.action {
		case masquerades:
			w.masquerading(chain, r, matched)
		case accepts, returns:
			w.exempting(chain, r, matched, depth)
			if s.leave(r.match, matched) {
				return
			}
		case jumps:
			w.jump(ctx, r, matched, depth)
		}
	}
}

// masquerading is a conflict wherever it stands: what we keep goes on to the next rule, and to the next table.
func (w *walker) masquerading(chain string, r rule, matched scope) {
	if w.traffic.meets(matched, policy.Keep) {
		owner := w.ownerOf(chain, r)
		w.report(r, owner.name, owner.wayOut)
	}
}

// exempting is a conflict ahead of our rule, in the same table: what it matches never gets there. With a condition that is not
// understood it is taken for somebody's exception, IPsec's for example.
func (w *walker) exempting(chain string, r rule, matched scope, depth int) {
	final := r.action == accepts || depth == 0
	if final && matched.ahead && !r.match.other && w.traffic.meets(matched, policy.Masquerade) {
		w.report(r, w.ownerOf(chain, r).name, exemptWayOut)
	}
}

// report adds a conflict, or counts it where the owner has one of the kind in this table already. Rules of nobody known are
// all listed: they may be of several.
func (w *walker) report(r rule, owner, wayOut string) {
	for i, f := range w.found {
		if owner != unknownOwner && f.Owner == owner && f.WayOut == wayOut {
			w.found[i].more++
			return
		}
	}
	w.found = append(w.found, finding{Conflict: Conflict{Owner: owner, Where: r.where, Rule: r.text, WayOut: wayOut}})
}

func (w *walker) jump(ctx context.Context, r rule, matched scope, depth int) {
	network, single := podChain(r)
	if first, read := w.perPod[network]; single && read {
		if first >= 0 {
			w.found[first].more++
		}
		return
	}
	before := len(w.found)
	w.enter(ctx, r, matched, depth)
	if single {
		w.perPod[network] = -1
		if len(w.found) > before {
			w.perPod[network] = before
		}
	}
}

func (w *walker) enter(ctx context.Context, r rule, matched scope, depth int) {
	w.chains++
	switch {
	case depth == maxDepth:
		return
	case w.chains == maxChains+1:
		w.errs = append(w.errs, fmt.Errorf("chain %s leads to more than %d chains: the others were not looked at", w.chain, maxChains))
	}
	if w.chains > maxChains {
		return
	}
	rules, err := w.read(ctx, r.chain)
	if err != nil {
		w.errs = append(w.errs, fmt.Errorf("a chain that %s leads to: %w", w.chain, err))
		return
	}
	w.follow(ctx, r.chain, rules, matched.fork(), depth+1)
}

// podChain recognises a chain that a CNI plugin made for one attachment, and its network. They are alike within a network, so
// one is read for all.
func podChain(r rule) (network string, ok bool) {
	network, _, ok = strings.Cut(r.comment, " id: ")
	return network, ok && strings.HasPrefix(r.chain, "CNI-") && strings.HasPrefix(network, "name: ")
}
