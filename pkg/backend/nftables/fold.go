package nftables

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// fold turns destinations into the disjoint ranges that keep the pod's address, sorted; everything else is masqueraded. The
// most specific prefix wins, an exception splits the prefix around it, covered prefixes vanish and adjacent ranges merge.
// With keepMulticast, which is for pods, multicast is kept whatever the destinations say; where the policy governs all traffic
// it is a destination like any other, as for the Kubernetes agent.
func fold(f policy.Family, destinations []policy.Destination, keepMulticast bool) []member {
	blocks := nested(f, destinations, keepMulticast)
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
	keep        bool
	place       int // in the list
}

// nested sorts prefixes by their beginning, each after those that contain it. The first of equal prefixes counts, as in a list
// that is read in order.
func nested(f policy.Family, destinations []policy.Destination, keepMulticast bool) []block {
	multicast := f.Multicast()
	blocks := make([]block, 0, len(destinations)+1)
	if keepMulticast {
		blocks = append(blocks, block{first: pointOf(multicast.Addr()), last: lastOf(multicast), keep: true})
	}
	for i, d := range destinations {
		if inMulticast := multicast.Bits() <= d.Prefix.Bits() && multicast.Contains(d.Prefix.Addr()); !inMulticast || !keepMulticast {
			blocks = append(blocks, block{pointOf(d.Prefix.Addr()), lastOf(d.Prefix), d.Verdict == policy.Keep, i})
		}
	}
	slices.SortFunc(blocks, outerFirst)
	return slices.CompactFunc(blocks, func(a, b block) bool { return a.first == b.first && a.last == b.last })
}

// outerFirst orders blocks by where they begin; of two that begin together the longer one comes first.
func outerFirst(a, b block) int {
	return cmp.Or(a.first.compare(b.first), b.last.compare(a.last), cmp.Compare(a.place, b.place))
}

// edge is a point from which on another verdict holds.
type edge struct {
	at   point
	keep bool
}

// sweep goes through the address space from below and notes where the verdict changes.
type sweep struct {
	end    point // of the address space
	edges  []edge
	around []block // the blocks around the current point, the most specific last
}

func (s *sweep) enter(b block) {
	s.leave(&b.first)
	s.around = append(s.around, b)
	s.mark(b.first, b.keep)
}

// leave ends the blocks that do not reach to a point, or all where there is none. Behind a block the verdict of the one around
// it holds again.
func (s *sweep) leave(to *point) {
	for n := len(s.around); n > 0; n = len(s.around) {
		b := s.around[n-1]
		if to != nil && b.last.compare(*to) >= 0 {
			return
		}
		s.around = s.around[:n-1]
		if b.last != s.end {
			s.mark(b.last.next(), n > 1 && s.around[n-2].keep)
		}
	}
}

// mark notes the verdict from a point on. The last word on one point counts, and an edge between equal verdicts is none.
func (s *sweep) mark(at point, keep bool) {
	if n := len(s.edges); n > 0 && s.edges[n-1].at == at {
		s.edges = s.edges[:n-1]
	}
	if n := len(s.edges); (n > 0 && s.edges[n-1].keep) != keep {
		s.edges = append(s.edges, edge{at, keep})
	}
}

// ranges pairs the edges: they alternate, beginning with one to keep.
func (s *sweep) ranges(is4 bool) []member {
	members := make([]member, 0, (len(s.edges)+1)/2)
	for i := 0; i < len(s.edges); i += 2 {
		last := s.end
		if i+1 < len(s.edges) {
			last = s.edges[i+1].at.previous()
		}
		members = append(members, member{first: s.edges[i].at.addr(is4), last: last.addr(is4)})
	}
	return members
}
