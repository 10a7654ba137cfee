package nftables

import (
	"iter"
	"net/netip"
	"slices"
	"sort"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// member is what a set or a map holds: a pod's address with its owner, or a range of destinations.
type member struct {
	first, last netip.Addr
	value       string // in a map, as nft prints it
	comment     string
}

// set is a set with its members, sorted by their first address.
type set struct {
	nfnl.Set
	members []member
	begin   map[netip.Addr]nfnl.Counts // what members that are to be added count on from
}

// difference compares sorted members: what only want has, and what only got has. Ranges are compared as wholes, because the
// kernel takes the two ends of one together only.
func difference(want, got []member) (missing, surplus []member) {
	for len(want) > 0 && len(got) > 0 {
		switch order := want[0].first.Compare(got[0].first); {
		case order == 0 && want[0] == got[0]:
			want, got = want[1:], got[1:]
		case order < 0:
			missing, want = append(missing, want[0]), want[1:]
		case order > 0:
			surplus, got = append(surplus, got[0]), got[1:]
		default:
			missing, want = append(missing, want[0]), want[1:]
			surplus, got = append(surplus, got[0]), got[1:]
		}
	}
	return append(missing, want...), append(surplus, got...)
}

// elements encodes members for a set of the kind, with what they count on from.
func elements(s nfnl.Set, members []member, begin map[netip.Addr]nfnl.Counts) []nfnl.Element {
	out := make([]nfnl.Element, 0, 2*len(members))
	for _, m := range members {
		out = append(out, nfnl.Element{Key: m.first, Value: m.value, Comment: m.comment, Counts: begin[m.first]})
		if after := m.last.Next(); s.Interval && after.IsValid() {
			out = append(out, nfnl.Element{Key: after, End: true})
		}
	}
	return out
}

// membersOf is the reverse of elements, for elements in any order and, after an interrupted dump, reported twice. An end without a
// beginning is skipped: nft writes one at address zero, where it means nothing.
func membersOf(s nfnl.Set, elements []nfnl.Element) []member {
	for i, j := 0, len(elements)-1; i < j; i, j = i+1, j-1 { // the kernel tells intervals from the last to the first
		inOrder(elements).Swap(i, j)
	}
	sort.Sort(inOrder(elements))
	all := elements
	elements = elements[:0]
	for _, e := range all {
		if n := len(elements); n == 0 || elements[n-1] != e {
			elements = append(elements, e)
		}
	}
	members := make([]member, 0, len(elements))
	for i, e := range elements {
		switch {
		case e.End:
		case !s.Interval:
			members = append(members, member{e.Key, e.Key, e.Value, e.Comment})
		case i+1 < len(elements):
			members = append(members, member{e.Key, elements[i+1].Key.Prev(), e.Value, e.Comment})
		default:
			members = append(members, member{e.Key, last(netip.PrefixFrom(e.Key, 0)), e.Value, e.Comment})
		}
	}
	return members
}

// inOrder orders elements by address; one range ends where the next begins. It is a type of its own, because slices.SortFunc would
// cost the plugin 20 KiB for each kind of element; slices.Reverse and slices.Compact are small, and not nothing either.
type inOrder []nfnl.Element

func (s inOrder) Len() int      { return len(s) }
func (s inOrder) Swap(i, j int) { s[i], s[j] = s[j], s[i] }
func (s inOrder) Less(i, j int) bool {
	order := s[i].Key.Compare(s[j].Key)
	return order < 0 || order == 0 && s[i].End && !s[j].End
}

// sharedMark ends the comment of an address that several attachments on record have, or had: a set holds an address once, so
// when its owner goes the records are searched for another. A label holds no brackets.
const sharedMark = " (shared)"

// podMember is the member that stands for a pod. Its comment is who owns the address, for us and for whoever reads the set.
func podMember(p ruleset.Pod) member {
	return member{first: p.Address, last: p.Address, comment: strings.TrimRight(string(p.Owner)+" "+p.Label, " ")}
}

// sharedMember is podMember for an address that other attachments may have too.
func sharedMember(p ruleset.Pod) member {
	m := podMember(p)
	m.comment += sharedMark
	return m
}

func (m member) shared() bool { return strings.HasSuffix(m.comment, sharedMark) }

// podOf reads back the pod that podMember or sharedMember wrote.
func podOf(m member) (ruleset.Pod, bool) {
	owner, label, _ := strings.Cut(strings.TrimSuffix(m.comment, sharedMark), " ")
	pod := ruleset.Pod{Owner: attachment.ID(owner), Address: m.first, Label: label}
	return pod, pod.Owner.Valid()
}

// claim gives every address to one owner. An owner who has it in the kernel keeps it, so that two records with one address do
// not change the set at every resync; otherwise the first in order of the ids gets it.
func claim(pods []ruleset.Pod, now []member) []member {
	var members []member
	for same := range byAddress(pods) {
		if len(same) == 1 {
			members = append(members, podMember(same[0]))
		} else {
			members = append(members, sharedMember(ownerOf(same, now)))
		}
	}
	return members
}

// owners are those to whom claim gives the addresses.
func owners(pods []ruleset.Pod, now []member) (all []ruleset.Pod) {
	for same := range byAddress(pods) {
		all = append(all, ownerOf(same, now))
	}
	return all
}

// byAddress visits the pods of each address, in order.
func byAddress(pods []ruleset.Pod) iter.Seq[[]ruleset.Pod] {
	return func(yield func([]ruleset.Pod) bool) {
		sorted := slices.Clone(pods)
		ruleset.Sort(sorted)
		for len(sorted) > 0 {
			same := 1
			for same < len(sorted) && sorted[same].Address == sorted[0].Address {
				same++
			}
			if !yield(sorted[:same]) {
				return
			}
			sorted = sorted[same:]
		}
	}
}

func ownerOf(pods []ruleset.Pod, now []member) ruleset.Pod {
	for _, p := range pods {
		i, there := slices.BinarySearchFunc(now, p.Address, func(m member, address netip.Addr) int { return m.first.Compare(address) })
		if there && len(pods) > 1 && strings.TrimSuffix(now[i].comment, sharedMark) == podMember(p).comment {
			return p
		}
	}
	return pods[0]
}
