package iptables

import (
	"net/netip"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// podOf reads back the pod that podRule wrote.
func podOf(r rule) (ruleset.Pod, bool) {
	source, err := netip.ParsePrefix(r.value("-s"))
	if err != nil || !source.IsSingleIP() {
		return ruleset.Pod{}, false
	}
	return podFrom(r.value("--comment"), source.Addr())
}

func podFrom(comment string, address netip.Addr) (ruleset.Pod, bool) {
	words := strings.SplitN(comment, " ", 4)
	if len(words) != 4 || words[0]+" "+words[1] != podCommentPrefix || !attachment.ID(words[2]).Valid() {
		return ruleset.Pod{}, false
	}
	return ruleset.Pod{Owner: attachment.ID(words[2]), Address: address, Label: words[3]}, true
}

// podsNFT reads the pods' chain without iptables.
func podsNFT(c *nfnl.Conn, s policy.Settings, family policy.Family) (pods []ruleset.Pod, err error) {
	rules, err := nftRules(c, s.PodsChain())
	for _, raw := range rules {
		if pod, to, ok := podOfNative(family, nfnl.DecodeRule(raw)); ok && to == s.Chain {
			pods = append(pods, pod)
		}
	}
	return pods, err
}

// podOfNative reads back the pod of a rule, and the chain that it leads to, as the kernel holds them.
func podOfNative(family policy.Family, r nfnl.Rule) (pod ruleset.Pod, to string, ok bool) {
	address, ok := sourceOfNative(family, r)
	if !ok {
		return ruleset.Pod{}, "", false
	}
	pod, ok = podFrom(nfnl.XTComment(r), address)
	return pod, nfnl.Target(r), ok
}

// sourceOfNative returns the source address that a rule selects.
func sourceOfNative(family policy.Family, r nfnl.Rule) (netip.Addr, bool) {
	source := uint32(12) // where the source address is in the network header
	if family == policy.IPv6 {
		source = 8
	}
	for i := range max(len(r.Exprs)-1, 0) {
		if !nfnl.Loads(r.Exprs[i], source, uint32(family.Bits()/8)) {
			continue
		}
		if address, fits := netip.AddrFromSlice(nfnl.Equals(r.Exprs[i+1])); fits {
			return address, true
		}
	}
	return netip.Addr{}, false
}
