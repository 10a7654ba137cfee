package conflicts

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"sort"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Packet is the first packet of a connection that is not on record yet, on its way through the node.
type Packet struct {
	Source, Destination netip.Addr
	Protocol            uint8  // its number; 0 stands for any
	Port                uint16 // of the destination; 0 stands for any
}

// Effect is what a base chain does with a packet's source address.
type Effect string

// The effects. What is not tracked passes all of the chains that translate.
const (
	Passes      Effect = "passes"      // the address stays, and the next base chain is asked
	Masquerades Effect = "masquerades" // it becomes the output interface's
	Translates  Effect = "translates"  // it becomes another one
	Redirects   Effect = "redirects"   // the destination becomes another one
	Untracks    Effect = "untracks"
	Drops       Effect = "drops"
	Unknown     Effect = "unknown" // the rules cannot be read, or not be followed
)

// End is where a packet leaves a base chain.
type End struct {
	Effect  Effect
	Address netip.Addr // that it translates or redirects to, where that is a single one
	Managed bool       // the rule is ip-masq's
	Owner   string     // of a rule of other software
	Where   string     // the rule's place, empty where no rule decides
	Rule    string     // its text
	Packets uint64     // its counter
	Bytes   uint64

	exempts bool // the rule ends the search ahead of the root rule
}

// Step is what one base chain does with a packet. More than one end means that something decides which nobody knows of the
// packet, such as chance, or a condition that is not understood.
type Step struct {
	Place    string // the base chain
	Priority int32
	// BeforeRouting is for base chains that translate destinations. Behind one that does, the packet is another one.
	BeforeRouting bool
	Ends          []End
	// Roots counts the rules that lead to the chains managed by ip-masq, and Managed are the ends of the packet if no other rule
	// of the base chain were there.
	Roots   int
	Managed []End
}

// Follow asks the rules of the calling thread's network namespace what they do with one packet: first those that can keep it
// from being tracked, then those that translate destinations, then those that translate sources, in the order in which the kernel asks them as far as priorities tell. Chains
// and tables managed by ip-masq are asked like all others. The error joins what could not be looked at.
func Follow(ctx context.Context, q Query, p Packet) ([]Step, error) {
	family := policy.FamilyOf(p.Destination)
	q.OwnChains = append(slices.Clone(q.OwnChains), q.Policy.Settings.Chain, q.Policy.Settings.PodsChain())
	bases, err := q.bases(true, family)
	errs := []error{err}
	sort.SliceStable(bases, func(i, j int) bool { return bases[i].before(bases[j]) })
	n := newKernelNode(family)
	var steps []Step
	for _, b := range bases {
		rules, err := b.read(ctx, b.chain)
		if errs = append(errs, err); err == nil && len(rules) == 0 {
			continue
		}
		steps = append(steps, b.step(ctx, q, n, p, rules, err))
	}
	return steps, errors.Join(errs...)
}

// before orders base chains as a packet meets them.
func (b base) before(c base) bool {
	if b.hook != c.hook {
		order := []hook{beforeTracking, beforeRouting, afterRouting}
		return slices.Index(order, b.hook) < slices.Index(order, c.hook)
	}
	return b.priority < c.priority
}

func (b base) step(ctx context.Context, q Query, n node, p Packet, rules []rule, err error) Step {
	step := Step{Place: b.place, Priority: b.priority, BeforeRouting: b.hook == beforeRouting}
	if err != nil {
		step.Ends = []End{{Effect: Unknown, Where: b.place, Rule: err.Error()}}
		return step
	}
	t := newTracer(b, q, n)
	roots := slices.DeleteFunc(slices.Clone(rules), func(r rule) bool { return !t.managed(r) })
	step.Roots = len(roots)
	step.Ends = t.ends(ctx, p, rules)
	if step.Roots > 0 {
		step.Managed = newTracer(b, q, n).ends(ctx, p, roots)
	}
	return step
}

// tracer follows one packet through the rules of one base chain.
type tracer struct {
	walker
	all []End
}

// traced is the packet as far as the rules have told its forms apart, and the last rule that sent it back.
type traced struct {
	packets
	last *End
}

func newTracer(b base, q Query, n node) *tracer {
	return &tracer{walker: walker{base: b, node: n, own: q.OwnChains, perPod: map[string]int{}}}
}

func (t *tracer) ends(ctx context.Context, p Packet, rules []rule) []End {
	t.ahead = slices.ContainsFunc(rules, t.managed)
	first := packets{pods: []netip.Addr{p.Source}, to: ranges{{p.Destination, p.Destination}}, protocol: p.Protocol, port: p.Port}
	for _, left := range t.follow(ctx, t.chain, rules, []traced{{packets: first}}, 0) {
		end := End{Effect: Passes}
		if left.last != nil {
			end = *left.last
		}
		t.add(end)
	}
	return t.all
}

// add notes an end, once.
func (t *tracer) add(end End) {
	if !slices.Contains(t.all, end) {
		t.all = append(t.all, end)
	}
}

// follow asks one rule after the other and returns the forms of the packet that come back to where the chain was called from.
func (t *tracer) follow(ctx context.Context, chain string, rules []rule, live []traced, depth int) (back []traced) {
	for _, r := range rules {
		if live = compacted(live); len(live) == 0 {
			return back
		}
		if depth == 0 && t.managed(r) {
			t.ahead = false
		}
		if r.action == pass && !r.marks && !r.untracks {
			continue
		}
		in, out := t.split(r, live)
		if len(in) == 0 {
			continue
		}
		if r.marks {
			for i := range in {
				in[i].packets = remarked([]packets{in[i].packets}, r)[0]
			}
		}
		end := t.endOf(chain, r)
		switch {
		case r.untracks && t.hook == beforeTracking:
			end.Effect = Untracks
			t.end(in, end)
			live = out
			continue
		case r.action == drop && r.queues && !end.Managed:
			end.Effect = Unknown // the program that reads the queue decides
		case r.action == drop:
			end.Effect = Drops
		case r.action == translate && r.masquerades:
			end.Effect = Masquerades
		case r.action == translate:
			end.Effect, end.Address = Translates, r.to
		case r.action == redirect:
			end.Effect, end.Address = Redirects, r.to
		}
		switch r.action {
		case pass:
			live = slices.Concat(out, in)
		case translate, redirect, accept, drop:
			t.end(in, end)
			live = out
		case returns:
			if depth == 0 {
				t.end(in, end)
			} else {
				back = append(back, sentBack(in, end)...)
			}
			live = out
		case jumpTo:
			live = slices.Concat(out, t.enter(ctx, r, in, depth))
		case goTo:
			left := t.enter(ctx, r, in, depth)
			if live = out; depth > 0 {
				back = append(back, left...)
				continue
			}
			for _, form := range left {
				if form.last == nil {
					form.last = &end
				}
				t.add(*form.last)
			}
		}
	}
	return append(back, live...)
}

// end notes where forms of the packet leave the base chain. A rule of which it is not known whether it matches, and what it
// does, can do anything.
func (t *tracer) end(in []traced, end End) {
	for _, form := range in {
		if end.Effect == Drops && form.doubtful {
			end.Effect = Unknown
		}
		t.add(end)
	}
}

// sentBack remembers which rule of ip-masq sent the packet back: it decides unless another program's rule does later. What else
// returns from a chain decides nothing.
func sentBack(in []traced, end End) []traced {
	if end.Managed {
		for i := range in {
			in[i].last = &end
		}
	}
	return in
}

func (t *tracer) endOf(chain string, r rule) End {
	end := End{
		Effect: Passes, Where: r.where, Rule: r.text, Packets: r.packets, Bytes: r.bytes,
		Managed: t.native == ownTable || t.owns(chain) || t.managed(r),
	}
	if !end.Managed {
		end.Owner, end.exempts = t.ownerOf(chain, r).name, t.ahead
	}
	return end
}

// owns reports whether a chain is one of those that the policy names, or one that these lead to, whose names begin with theirs.
func (t *tracer) owns(chain string) bool {
	return slices.ContainsFunc(t.own, func(own string) bool { return chain == own || strings.HasPrefix(chain, own+"-") })
}

// Exempts reports whether the packet ends its way through a base chain at another program's rule ahead of ip-masq's.
func (e End) Exempts() bool { return e.exempts && e.Effect == Passes }

func (t *tracer) split(r rule, live []traced) (in, out []traced) {
	for _, form := range live {
		yes, no := r.match.split(t.node, form.packets)
		for _, p := range yes {
			in = append(in, traced{p, form.last})
		}
		for _, p := range no {
			out = append(out, traced{p, form.last})
		}
	}
	return in, out
}

// followChains bounds how many chains a packet is followed into: firewalld has a hundred on the way of any packet.
const followChains = 512

// enter follows a chain. What cannot be read, or is too deep, can do anything.
func (t *tracer) enter(ctx context.Context, r rule, in []traced, depth int) (back []traced) {
	t.chains++
	var rules []rule
	err := fmt.Errorf("chain %s leads too far", t.chain)
	if depth < maxDepth && t.chains <= followChains {
		rules, err = t.read(ctx, r.chain)
	}
	if err != nil {
		end := t.endOf(r.chain, r)
		end.Effect, end.Rule = Unknown, fmt.Sprintf("%s (%s)", r.text, err)
		t.add(end)
		return nil
	}
	return t.follow(ctx, r.chain, rules, in, depth+1)
}

// compacted drops forms that no rule so far tells apart: both sides of a condition that nobody can decide.
func compacted(forms []traced) []traced {
	var all []traced
	for _, form := range forms {
		if !slices.ContainsFunc(all, func(other traced) bool {
			return other.doubtful == form.doubtful && other.mark == form.mark && other.anyMark == form.anyMark && other.last == form.last
		}) {
			all = append(all, form)
		}
	}
	return all
}

// elementLimit bounds how much of a set is read to follow packets: all of ip-masq's own.
func (n *nativeReader) elementLimit() int {
	if n.table == ownTable {
		return math.MaxInt
	}
	return maxElements
}
