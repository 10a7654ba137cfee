package nftables

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// The names of our sets and maps. Those that hold pods do not depend on the policy, so that a pod can be attached without knowing it.

func podsSet(f policy.Family) string { return fmt.Sprintf("pods%d", uint8(f)) }

// optedOutSet holds the addresses that keep their source although the policy governs what is no pod's.
func optedOutSet(f policy.Family) string { return fmt.Sprintf("optedout%d", uint8(f)) }

// sourcesMap holds the source addresses that pods chose.
func sourcesMap(f policy.Family) string { return fmt.Sprintf("sources%d", uint8(f)) }

// keepSets are the names of the set of destinations. Where a change fills a second set, the two take turns.
func keepSets(f policy.Family) []string { return twins(fmt.Sprintf("keep%d", uint8(f))) }

// verdictMaps are in the place of keepSets where there are egress groups: what keeps the address and what gets one of a group's
// is in one map, so that a destination moves between them in one step.
func verdictMaps(f policy.Family) []string { return twins(fmt.Sprintf("verdicts%d", uint8(f))) }

func twins(name string) []string { return []string{name, name + ".b"} }

// destinationSets are all that a shared chain can look into.
func destinationSets(f policy.Family) []string { return append(keepSets(f), verdictMaps(f)...) }

// masqueradeSet holds the destinations that prefixes of their own masquerade. A rule counts them there; what masquerades them are the
// rules that masquerade all that is left.
func masqueradeSet(f policy.Family) string { return fmt.Sprintf("masquerade%d", uint8(f)) }

// poolPrefix begins the names of the maps that divide the sources among the addresses of a group.
func poolPrefix(f policy.Family) string { return fmt.Sprintf("pool%d/", uint8(f)) }

// setOf describes one of our sets.
func setOf(name string, f policy.Family) nfnl.Set {
	s := nfnl.Set{Table: tableName, Name: name, Key: nfnl.IPv4Addr}
	if f == policy.IPv6 {
		s.Key = nfnl.IPv6Addr
	}
	switch {
	case slices.Contains(keepSets(f), name):
		s.Interval, s.Comment = true, "destinations that see the pod's own address; keep and keep.b take turns where a change fills a new set"
	case slices.Contains(verdictMaps(f), name):
		s.Interval, s.Map, s.Value = true, true, nfnl.Verdict
		s.Comment = "destinations that are not masqueraded; verdicts and verdicts.b take turns where a change fills a new map"
	case name == masqueradeSet(f):
		s.Interval, s.Comment = true, "destinations that are masqueraded, to count them"
	case name == optedOutSet(f):
		s.Comment = "pods that keep their address"
	case name == sourcesMap(f):
		s.Map, s.Value, s.Comment = true, s.Key, "pods and the source addresses that they chose"
	case strings.HasPrefix(name, poolPrefix(f)):
		s.Map, s.Value, s.Comment = true, s.Key, "the last bits of a source, and the address that it gets"
	default:
		s.Comment = "pods behind the policy"
	}
	return s
}

// ownSet tells the family of one of our sets.
func ownSet(name string) (policy.Family, bool) {
	for _, f := range families {
		if slices.Contains(append(destinationSets(f), masqueradeSet(f), podsSet(f), optedOutSet(f), sourcesMap(f)), name) || strings.HasPrefix(name, poolPrefix(f)) {
			return f, true
		}
	}
	return 0, false
}

// sameKind reports whether a set that was read is of the kind that its name stands for. Ranges that are counted, and such that are not,
// are both (sameCount).
func sameKind(now nfnl.Set, want nfnl.Set) bool {
	return now.Key == want.Key && now.Interval == want.Interval && now.Map == want.Map && now.Value == want.Value
}

// sameCount reports whether the ranges of both sets are counted, or of neither. That cannot be changed in a set that is there.
func sameCount(now nfnl.Set, want nfnl.Set) bool {
	return !want.Interval || now.Counted == want.Counted
}
