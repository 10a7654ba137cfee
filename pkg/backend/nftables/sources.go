package nftables

import (
	"net/netip"

	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// sourceMember is what the map of sources has for a pod that chose an address; its comment is that of podMember.
func sourceMember(p ruleset.Pod) member {
	m := podMember(p)
	m.value = p.Translated.String()
	return m
}

// claimSources gives every address the source that its owner chose. now is what the set of pods holds, which says who the owner is.
func claimSources(pods []ruleset.Pod, now []member) (members []member) {
	for _, owner := range owners(pods, now) {
		if owner.Translated.IsValid() {
			members = append(members, sourceMember(owner))
		}
	}
	return members
}

func optedOutMembers(addresses []netip.Addr) []member {
	members := make([]member, len(addresses))
	for i, a := range addresses {
		members[i] = member{first: a, last: a}
	}
	return members
}
