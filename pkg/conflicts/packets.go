package conflicts

import (
	"net/netip"
	"slices"
	"strings"
)

// packets are first packets of connections that no rule so far has told apart: from any of the pods to any of the addresses.
type packets struct {
	pods     []netip.Addr // sorted
	anyPod   bool         // no pod is known yet, so nothing is known of the sources
	to       ranges
	mark     uint32
	anyMark  bool   // the mark is not known any more
	protocol uint8  // 0: those of all protocols
	port     uint16 // 0: those to all ports
	doubtful bool   // perhaps there are no such packets: an earlier condition was not understood
}

// split divides packets into those that meet all of the match and the rest. Where some packets of every pod meet a condition,
// and where that is not known, they are on both sides.
func (m match) split(n node, p packets) (in, out []packets) {
	in = []packets{p}
	for _, c := range m {
		var met []packets
		for _, p := range in {
			yes, no := c.split(n, p)
			met, out = append(met, yes...), append(out, no...)
		}
		in = met
	}
	return in, out
}

func (c condition) split(n node, p packets) (in, out []packets) {
	switch c.about {
	case some:
		return []packets{p}, []packets{p}
	case protocol:
		in, out = p.byNumber(uint16(p.protocol), c)
	case port:
		in, out = p.byNumber(p.port, c)
	case never:
		out = []packets{p}
	case source:
		in, out = p.bySource(c.ofSource, c.not)
	case sourceSet:
		if ask := n.members(c.set); ask != nil {
			in, out = p.bySource(ask, c.not)
		} else {
			in, out = p.doubt()
		}
	case destination:
		in, out = p.byDestination(p.to.split(c.addresses))
	case destinationSet:
		if both, rest, ok := n.splitBySet(c.set, p.to); ok {
			in, out = p.byDestination(both, rest)
		} else {
			in, out = p.doubt()
		}
	case input:
		in, out = p.byInput(n, c.interfaces)
	case output:
		in, out = p.byOutput(n, c.interfaces)
	case marked:
		in, out = p.byMark(c.mark, c.mask)
	case oneOf:
		in, out = p.byAny(n, c.any)
	default:
		in, out = p.doubt()
	}
	if c.not {
		in, out = out, in
	}
	return in, out
}

// byNumber divides by protocol or port where only packets of one are asked about; packets of all of them are on both sides.
func (p packets) byNumber(number uint16, c condition) (in, out []packets) {
	if number == 0 {
		return []packets{p}, []packets{p}
	}
	if number < c.from || c.upTo < number {
		return nil, []packets{p}
	}
	return []packets{p}, nil
}

func (p packets) doubt() (in, out []packets) {
	p.doubtful = true
	return []packets{p}, []packets{p}
}

// bySource asks about every pod. Where none is known, a rule for certain sources is taken for none of the pods', and one for
// all but certain sources may be for them.
func (p packets) bySource(contains func(netip.Addr) bool, not bool) (in, out []packets) {
	if p.anyPod {
		if not {
			return p.doubt()
		}
		return nil, []packets{p}
	}
	var yes, no []netip.Addr
	for _, pod := range p.pods {
		if contains(pod) {
			yes = append(yes, pod)
		} else {
			no = append(no, pod)
		}
	}
	return p.of(yes), p.of(no)
}

// of is the part of the packets that comes from some of the pods.
func (p packets) of(pods []netip.Addr) []packets {
	if len(pods) == 0 {
		return nil
	}
	p.pods = pods
	return []packets{p}
}

func (p packets) byDestination(both, rest ranges) (in, out []packets) {
	return p.bound(both), p.bound(rest)
}

// bound is the part of the packets that goes to some of the addresses.
func (p packets) bound(to ranges) []packets {
	if len(to) == 0 {
		return nil
	}
	p.to = to
	return []packets{p}
}

func (p packets) byMark(mark, mask uint32) (in, out []packets) {
	switch {
	case p.anyMark:
		return p.doubt()
	case p.mark&mask == mark:
		return []packets{p}, nil
	}
	return nil, []packets{p}
}

// byInput asks over which interface a pod is reached: its packets come in by that one.
func (p packets) byInput(n node, names []string) (in, out []packets) {
	if p.anyPod {
		return p.doubt()
	}
	var yes, no, unknown []netip.Addr
	for _, pod := range p.pods {
		switch name := n.interfaceOf(pod); {
		case name == "":
			unknown = append(unknown, pod)
		case matchesName(names, name):
			yes = append(yes, pod)
		default:
			no = append(no, pod)
		}
	}
	in, out = p.of(yes), p.of(no)
	for _, p := range p.of(unknown) {
		maybe, or := p.doubt()
		in, out = append(in, maybe...), append(out, or...)
	}
	return in, out
}

// byOutput asks by which interface the node would send the packets. One that came in by an interface does not leave by it: the
// addresses there reach each other without the node.
func (p packets) byOutput(n node, names []string) (in, out []packets) {
	if !slices.ContainsFunc(n.interfaces(), func(name string) bool { return matchesName(names, name) }) {
		return nil, []packets{p}
	}
	from := []packets{p}
	if !p.anyPod {
		out, from = p.bySource(func(pod netip.Addr) bool { return matchesName(names, n.interfaceOf(pod)) }, false)
	}
	for _, p := range from {
		for _, p := range p.alikeForRouting(n) {
			both, rest, ok := n.splitByOutput(p.pods, p.to, names)
			if !ok {
				maybe, or := p.doubt()
				in, out = append(in, maybe...), append(out, or...)
				continue
			}
			in, out = append(in, p.bound(both)...), append(out, p.bound(rest)...)
		}
	}
	return in, out
}

// alikeForRouting divides the packets by pod where the node routes by source address.
func (p packets) alikeForRouting(n node) []packets {
	if p.anyPod || !n.routesBySource() {
		return []packets{p}
	}
	var all []packets
	for i := range p.pods {
		all = append(all, p.of(p.pods[i:i+1])...)
	}
	return all
}

func matchesName(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		start, wild := strings.CutSuffix(pattern, "*")
		return name == pattern || wild && strings.HasPrefix(name, start)
	})
}

func (p packets) byAny(n node, alternatives []match) (in, out []packets) {
	out = []packets{p}
	for _, m := range alternatives {
		var rest []packets
		for _, p := range out {
			yes, no := m.split(n, p)
			in, rest = append(in, yes...), append(rest, no...)
		}
		out = joined(rest)
	}
	return in, out
}

// joined puts groups together that differ by pods alone. The two sides of a condition that some packets meet are alike and
// would double with every rule, and a rule for each pod would leave a group for each.
func joined(groups []packets) []packets {
	var all []packets
	for _, p := range groups {
		i := slices.IndexFunc(all, func(q packets) bool {
			return q.doubtful == p.doubtful && q.mark == p.mark && q.anyMark == p.anyMark && q.to.equal(p.to)
		})
		if i < 0 {
			all = append(all, p)
			continue
		}
		if !slices.Equal(all[i].pods, p.pods) {
			all[i].pods = slices.Concat(all[i].pods, p.pods)
			slices.SortFunc(all[i].pods, netip.Addr.Compare)
			all[i].pods = slices.Compact(all[i].pods)
		}
	}
	return all
}
