package conflicts

import (
	"maps"
	"net/netip"
	"slices"
)

// scope is what is known of the packets that reach a rule.
type scope struct {
	pods   []netip.Addr // sorted
	anyone bool         // no pod is known yet, so that only rules without a source can be judged
	bound  []address    // where the packets go
	left   map[netip.Prefix]bool
	ahead  bool // our rule stands further down
}

func (t traffic) scope(ahead bool) scope {
	return scope{pods: t.pods, anyone: len(t.pods) == 0, left: map[netip.Prefix]bool{}, ahead: ahead}
}

// fork is the scope for another chain, from which nothing leaves this one.
func (s scope) fork() scope {
	s.left = maps.Clone(s.left)
	return s
}

// narrow is the scope of what a rule matches, and false where that is no packet of a pod.
func (s scope) narrow(m match) (scope, bool) {
	if m.never {
		return s, false
	}
	for _, source := range m.sources {
		if !source.not && s.anyone {
			return s, false
		}
		s.pods = source.filter(s.pods)
	}
	s.bound = append(slices.Clip(s.bound), m.destinations...)
	return s, s.anyone || len(s.pods) > 0
}

// filter selects among sorted addresses. Those of a prefix are neighbours.
func (a address) filter(addrs []netip.Addr) []netip.Addr {
	start, _ := slices.BinarySearchFunc(addrs, a.prefix.Addr(), netip.Addr.Compare)
	end := start
	for end < len(addrs) && a.prefix.Contains(addrs[end]) {
		end++
	}
	if a.not {
		return slices.Concat(addrs[:start], addrs[end:])
	}
	return addrs[start:end]
}

// part is what of a prefix packets within the scope go to.
func (s scope) part(prefix netip.Prefix) (netip.Prefix, bool) {
	for _, a := range s.bound {
		switch {
		case a.not && covers(a.prefix, prefix), !a.not && !a.prefix.Overlaps(prefix):
			return prefix, false
		case !a.not && covers(prefix, a.prefix):
			prefix = a.prefix
		}
	}
	gone := ancestor(prefix, func(p netip.Prefix) bool { return s.left[p] })
	return prefix, !gone
}

func covers(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// leave takes out of the scope what a rule sends away, and reports whether that is everything. A rule for some pods sends
// nobody away, because the others still come.
func (s *scope) leave(m match, matched scope) (all bool) {
	some := len(matched.pods) != len(s.pods) || s.anyone && len(m.sources) > 0
	if m.other || some || len(m.destinations) > 1 {
		return false
	}
	if len(m.destinations) == 0 {
		return true
	}
	to := m.destinations[0]
	if to.not {
		s.bound = append(slices.Clip(s.bound), address{prefix: to.prefix})
	} else {
		s.left[to.prefix] = true
	}
	return false
}
