package nftables

import (
	"net/netip"
	"sort"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// fold turns destinations into the disjoint ranges that keep the pod's address, sorted; everything else is masqueraded. The
// most specific prefix wins, an exception splits the prefix around it, covered prefixes vanish and adjacent ranges merge.
// With keepMulticast, which is for pods, multicast is kept whatever the destinations say; where the policy governs all traffic
// it is a destination like any other, as for the Kubernetes agent.
func fold(f policy.Family, destinations []policy.Destination, keepMulticast bool) []member {
	members := foldTo(f, destinations, keepMulticast, func(d policy.Destination) string {
		if d.Verdict == policy.Keep {
			return string(policy.Keep)
		}
		return ""
	})
	for i := range members {
		members[i].value = ""
	}
	return members
}

// foldTo is fold for a map: value says what it has for a destination, nothing for one that is masqueraded, and adjacent ranges
// with equal values merge.
func foldTo(f policy.Family, destinations []policy.Destination, keepMulticast bool, value func(policy.Destination) string) []member {
	blocks := nested(f, destinations, keepMulticast, value)
	s := sweep{end: lastOf(netip.PrefixFrom(f.Multicast().Addr(), 0)), edges: make([]edge, 0, 2*len(blocks))}
	for _, b := range blocks {
		s.enter(b)
	}
	s.leave(nil)
	return s.ranges(f == policy.IPv4)
}

// block is a prefix as a range of points.
type block struct {
	first, last point
	value       string
	place       int // in the list
}

// nested sorts prefixes by their beginning, each after those that contain it. The first of equal prefixes counts, as in a list
// that is read in order.
func nested(f policy.Family, destinations []policy.Destination, keepMulticast bool, value func(policy.Destination) string) []block {
	multicast := f.Multicast()
	blocks := make([]block, 0, len(destinations)+1)
	if keepMulticast {
		blocks = append(blocks, block{first: pointOf(multicast.Addr()), last: lastOf(multicast), value: value(policy.Destination{Prefix: multicast, Verdict: policy.Keep})})
	}
	for i, d := range destinations {
		if inMulticast := multicast.Bits() <= d.Prefix.Bits() && multicast.Contains(d.Prefix.Addr()); !inMulticast || !keepMulticast {
			blocks = append(blocks, block{pointOf(d.Prefix.Addr()), lastOf(d.Prefix), value(d), i})
		}
	}
	sort.Sort(outerFirst(blocks))
	different := blocks[:0]
	for _, b := range blocks {
		if n := len(different); n == 0 || different[n-1].first != b.first || different[n-1].last != b.last {
			different = append(different, b)
		}
	}
	return different
}

// outerFirst orders blocks by where they begin; of two that begin together the longer one comes first.
type outerFirst []block

func (s outerFirst) Len() int      { return len(s) }
func (s outerFirst) Swap(i, j int) { s[i], s[j] = s[j], s[i] }
func (s outerFirst) Less(i, j int) bool {
	a, b := &s[i], &s[j]
	if a.first != b.first {
		return a.first.compare(b.first) < 0
	}
	if a.last != b.last {
		return a.last.compare(b.last) > 0
	}
	return a.place < b.place
}

// edge is a point from which on another value holds.
type edge struct {
	at    point
	value string
}

// sweep goes through the address space from below and notes where the value changes.
type sweep struct {
	end    point // of the address space
	edges  []edge
	around []block // the blocks around the current point, the most specific last
}

func (s *sweep) enter(b block) {
	s.leave(&b.first)
	s.around = append(s.around, b)
	s.mark(b.first, b.value)
}

// leave ends the blocks that do not reach to a point, or all where there is none. Behind a block the value of the one around
// it holds again.
func (s *sweep) leave(to *point) {
	for n := len(s.around); n > 0; n = len(s.around) {
		b := s.around[n-1]
		if to != nil && b.last.compare(*to) >= 0 {
			return
		}
		s.around = s.around[:n-1]
		if b.last != s.end {
			around := ""
			if n > 1 {
				around = s.around[n-2].value
			}
			s.mark(b.last.next(), around)
		}
	}
}

// mark notes the value from a point on. The last word on one point counts, and an edge between equal values is none.
func (s *sweep) mark(at point, value string) {
	if n := len(s.edges); n > 0 && s.edges[n-1].at == at {
		s.edges = s.edges[:n-1]
	}
	before := ""
	if n := len(s.edges); n > 0 {
		before = s.edges[n-1].value
	}
	if before != value {
		s.edges = append(s.edges, edge{at, value})
	}
}

// ranges are the parts between the edges that have a value.
func (s *sweep) ranges(is4 bool) []member {
	members := make([]member, 0, len(s.edges))
	for i, e := range s.edges {
		if e.value == "" {
			continue
		}
		last := s.end
		if i+1 < len(s.edges) {
			last = s.edges[i+1].at.previous()
		}
		members = append(members, member{first: e.at.addr(is4), last: last.addr(is4), value: e.value})
	}
	return members
}
