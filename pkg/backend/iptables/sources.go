package iptables

import (
	"net/netip"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

const chosenComment = "ip-masq-agent: pods that chose their source address"

// Pods that chose their source address (ruleset.Pod.Translated) have a chain that translates by the pod. Whatever would masquerade
// asks it first. To give each pod's rule another target instead would take a copy of the whole shared chain for every address,
// and an ADD that comes before the agent would have to write it.

// hasSources reports whether there is such a chain: where a pod has chosen an address, and where the settings let pods do so,
// because then the next pod's ADD, which leaves the shared chain alone, may bring an address.
func hasSources(s policy.Settings, table ruleset.Table) bool {
	return s.PodAnnotations.Allows(policy.SourceAddressesAnnotation) ||
		slices.ContainsFunc(table.Pods, func(p ruleset.Pod) bool { return p.Translated.IsValid() })
}

// askSources is the rule by which what match selects asks the chain, and comes back where its source chose nothing.
func askSources(s policy.Settings, table ruleset.Table, match rule) []rule {
	if !hasSources(s, table) {
		return nil
	}
	return []rule{join(match, rule{"-j", sourcesChain(s)})}
}

// sourceRules are the rules of that chain.
func sourceRules(s policy.Settings, table ruleset.Table) (rules []rule) {
	for _, pod := range table.Pods {
		rules = append(rules, sourceRulesOf(s, table.Family, pod)...)
	}
	return rules
}

func sourceRulesOf(s policy.Settings, family policy.Family, pod ruleset.Pod) []rule {
	if !pod.Translated.IsValid() {
		return nil
	}
	match := rule{"-s", netip.PrefixFrom(pod.Address, family.Bits()).String()}
	return portRules(s, match, comment(podComment(pod)), translate(s, pod.Translated))
}

// chosenBy reads back the source addresses that the chain's rules give to pods.
func chosenBy(rules []rule) map[ruleset.Pod]netip.Addr {
	chosen := map[ruleset.Pod]netip.Addr{}
	for _, r := range rules {
		pod, ok := podOf(r)
		if address, err := netip.ParseAddr(r.value("--to-source")); ok && err == nil { // the last of its rules has no ports
			chosen[pod] = address
		}
	}
	return chosen
}

// planSources changes the rules of single pods. A pod's rules are in an order, those with ports first, so that they are written
// anew together.
func planSources(sc *script, s policy.Settings, table ruleset.Table, now []rule, there bool) {
	if !there || slices.ContainsFunc(now, func(r rule) bool { _, ok := podOf(r); return !ok }) {
		planWhole(sc, sourcesChain(s), there, sourceRules(s, table))
		return
	}
	held := map[string][]rule{}
	for _, r := range now {
		held[ownerOf(r)] = append(held[ownerOf(r)], r)
	}
	var missing []rule
	for _, pod := range table.Pods {
		rules := sourceRulesOf(s, table.Family, pod)
		if len(rules) == 0 {
			continue
		}
		if key := ownerOf(rules[0]); equalRules(held[key], rules) {
			delete(held, key)
			continue
		}
		missing = append(missing, rules...)
	}
	for _, r := range now {
		if held[ownerOf(r)] != nil {
			sc.delete(sourcesChain(s), r)
		}
	}
	sc.appendAll(sourcesChain(s), missing)
}

// ownerOf tells the rules of pods apart.
func ownerOf(r rule) string { return r.value("-s") + " " + r.value("--comment") }

func equalRules(a, b []rule) bool { return slices.EqualFunc(a, b, slices.Equal) }
