package conflicts

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// The bounds of a search. The kernel refuses to go deeper (NFT_JUMP_STACK_SIZE). Known software leads to fewer than twenty
// chains beside those of single pods, of which one for each network is read. Groups of packets are what the rules before told
// apart, other than by pod.
const (
	maxDepth  = 16
	maxChains = 64
	maxGroups = 4096
)

// walker goes through the rules of one base chain as the pods' packets would.
type walker struct {
	base
	node    node
	traffic traffic
	own     []string
	found   []finding
	errs    []error
	chains  int
	perPod  map[string]int // networks whose chain was read, with what was found there or -1
	ahead   bool           // the root rule managed by ip-masq stands further down
	vague   bool           // too many groups of packets to go on
}

// finding is a conflict and how many more of the same owner and fix there are in the table.
type finding struct {
	Conflict
	more int
}

func newWalker(q Query, b base, n node) *walker {
	return &walker{base: b, node: n, traffic: newTraffic(q, b.family), own: q.OwnChains, perPod: map[string]int{}}
}

func (w *walker) walk(ctx context.Context) []Conflict {
	rules, err := w.read(ctx, w.chain)
	if err != nil {
		w.errs = append(w.errs, err)
	}
	w.ahead = slices.ContainsFunc(rules, w.managed)
	w.follow(ctx, w.chain, rules, w.traffic.first(w.node), 0)
	all := make([]Conflict, len(w.found))
	for i, f := range w.found {
		all[i] = f.Conflict
		if f.more > 0 {
			all[i].Where += fmt.Sprintf(" (and %d more)", f.more)
		}
	}
	return all
}

// managed reports whether a rule is the one that leads to ip-masq's chains.
func (w *walker) managed(r rule) bool {
	return (r.action == jumpTo || r.action == goTo) && slices.Contains(w.own, r.chain)
}

// follow asks one rule after the other, until no packet is left to ask about, and returns the packets that come back to where
// the chain was called from.
func (w *walker) follow(ctx context.Context, chain string, rules []rule, live []packets, depth int) (back []packets) {
	for _, r := range rules {
		if w.managed(r) {
			w.ahead = w.ahead && depth > 0
			continue
		}
		if live = w.bounded(live); len(live) == 0 {
			return back
		}
		if r.action == pass && !r.marks && !r.untracks {
			continue
		}
		in, out := r.split(w.node, live)
		if len(in) == 0 {
			continue
		}
		if r.untracks {
			w.untracking(chain, r, in)
		}
		if r.marks {
			in = remarked(in, r)
		}
		switch r.action {
		case pass, redirect:
			live = slices.Concat(out, in)
		case translate:
			w.translating(chain, r, in)
			live = out
		case accept:
			w.exempting(chain, r, in)
			live = out
		case returns:
			if depth == 0 {
				w.exempting(chain, r, in)
			}
			back, live = append(back, in...), out
		case drop:
			live = out
		case jumpTo:
			live = slices.Concat(out, w.jump(ctx, r, in, depth))
		case goTo:
			left := w.jump(ctx, r, in, depth)
			if depth == 0 {
				w.exempting(chain, r, left)
			}
			back, live = append(back, left...), out
		}
	}
	return append(back, live...)
}

// split applies the rule to each group.
func (r rule) split(n node, groups []packets) (in, out []packets) {
	for _, p := range groups {
		yes, no := r.match.split(n, p)
		in, out = append(in, yes...), append(out, no...)
	}
	return in, out
}

func remarked(groups []packets, r rule) []packets {
	for i := range groups {
		groups[i].mark = groups[i].mark&^r.markMask ^ r.mark
		groups[i].anyMark = groups[i].anyMark || r.markUnknown
	}
	return groups
}

// bounded gives up on rules that tell apart more groups of packets than one would write by hand, and says so.
func (w *walker) bounded(groups []packets) []packets {
	groups = joined(groups)
	if len(groups) <= maxGroups && !w.vague {
		return groups
	}
	if !w.vague {
		w.errs = append(w.errs, fmt.Errorf("chain %s tells too many packets apart: the rest of it was not looked at", w.chain))
	}
	w.vague = true
	return nil
}

// translating is a conflict wherever it stands: packets that the policy keeps go on to the next rule, and to the next table. Those
// for which it chooses an address get that from the agent, unless the rule is asked before.
func (w *walker) translating(chain string, r rule, in []packets) {
	spoiled := w.traffic.kept
	if w.ahead || w.priority < agentPriority {
		spoiled = rangesOf(slices.Concat(spoiled, w.traffic.chosen)...)
	}
	var hit []addrRange
	for _, p := range in {
		if !p.doubtful && w.hook == afterRouting {
			both, _ := p.to.split(spoiled)
			hit = append(hit, both...)
		}
	}
	if len(hit) > 0 {
		owner := w.ownerOf(chain, r)
		w.report(r, owner.name, owner.translationFix(chain, rangesOf(hit...), w.traffic.kept))
	}
}

// agentPriority is where the agent's rules are asked with every backend (NF_IP_PRI_NAT_SRC). Which of two base chains of one
// priority is asked first depends on which was made first, and nobody can tell.
const agentPriority = 100

// exempting is a conflict ahead of the agent's root rule in the same base chain: what it matches never gets there.
func (w *walker) exempting(chain string, r rule, in []packets) {
	if w.hook == afterRouting && w.ahead && certainly(in, w.traffic.translated()) {
		w.report(r, w.ownerOf(chain, r).name, exemptFix)
	}
}

// untracking is a conflict for what has to be masqueraded: without connection tracking no rule of any table nat is asked.
func (w *walker) untracking(chain string, r rule, in []packets) {
	if w.hook == beforeTracking && certainly(in, w.traffic.translated()) {
		owner := w.ownerOf(chain, r)
		w.report(r, owner.name, owner.untrackedFix())
	}
}

// report adds a conflict, or counts it where the owner has one of the kind in this table already. Rules of nobody known are
// all listed: they may be of several.
func (w *walker) report(r rule, owner, fix string) {
	for i, f := range w.found {
		if owner != unknownOwner && f.Owner == owner && f.Fix == fix || f.Where == r.where {
			if f.Where != r.where {
				w.found[i].more++
			}
			return
		}
	}
	w.found = append(w.found, finding{Conflict: Conflict{Owner: owner, Where: r.where, Rule: r.text, Fix: fix}})
}

// jump returns the packets that come back. Of the chains that a CNI plugin made for single pods, one for each network is read:
// the others are alike.
func (w *walker) jump(ctx context.Context, r rule, in []packets, depth int) (back []packets) {
	network, single := podChain(r)
	if first, read := w.perPod[network]; single && read {
		if first < 0 {
			return doubted(in)
		}
		w.found[first].more++
		return nil
	}
	before := len(w.found)
	back = w.enter(ctx, r, in, depth)
	if single {
		w.perPod[network] = -1
		if len(w.found) > before {
			w.perPod[network] = before
		}
	}
	return back
}

// enter reads a chain and follows it. What cannot be looked at may do anything to the packets, so those that come back are in
// doubt.
func (w *walker) enter(ctx context.Context, r rule, in []packets, depth int) (back []packets) {
	w.chains++
	if w.chains == maxChains+1 {
		w.errs = append(w.errs, fmt.Errorf("chain %s leads to more than %d chains: the others were not looked at", w.chain, maxChains))
	}
	if depth == maxDepth || w.chains > maxChains {
		return doubted(in)
	}
	rules, err := w.read(ctx, r.chain)
	if err != nil {
		w.errs = append(w.errs, fmt.Errorf("a chain that %s leads to: %w", w.chain, err))
		return doubted(in)
	}
	return w.follow(ctx, r.chain, rules, in, depth+1)
}

func doubted(groups []packets) []packets {
	for i := range groups {
		groups[i].doubtful = true
	}
	return groups
}

// podChain recognises a chain that a CNI plugin made for one attachment, and its network.
func podChain(r rule) (network string, ok bool) {
	network, _, ok = strings.Cut(r.comment, " id: ")
	return network, ok && strings.HasPrefix(r.chain, "CNI-") && strings.HasPrefix(network, "name: ")
}
