package iptables

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// The comments of our rules. Those of the shared chain are the words of the Kubernetes documentation, which people grep for.
const (
	keepComment       = "ip-masq-agent: cluster-local traffic should not be subject to MASQUERADE"
	exceptionComment  = "ip-masq-agent: exception inside cluster-local CIDRs, subject to MASQUERADE"
	masqueradeComment = "ip-masq-agent: outbound traffic should be subject to MASQUERADE (this match must come after cluster-local CIDR matches)"
	podsRootComment   = "ip-masq-agent: pods"
	podCommentPrefix  = "ipmasq v1"
)

// natTable holds everything that ip-masq manages here; postrouting is the only chain of other software that gets a rule.
const (
	natTable    = "nat"
	postrouting = "POSTROUTING"
)

// portProtocols are those whose source port MASQUERADE and SNAT can choose.
var portProtocols = []string{"tcp", "udp", "sctp"}

// Render prints the state as the input of iptables-restore --noflush, one text per family, IPv4 first. It is what Apply
// leaves in the kernel, not what it sends: Apply sends the difference.
func Render(state ruleset.State) string {
	var b strings.Builder
	for _, table := range state.Tables {
		fmt.Fprintf(&b, "# %s\n%s", table.Family, renderTable(state, table))
	}
	return b.String()
}

func renderTable(state ruleset.State, table ruleset.Table) string {
	script := newScript()
	chains := renderedChains(state, table)
	for _, c := range chains {
		script.declare(c.name)
	}
	for _, c := range chains {
		script.appendAll(c.name, c.rules)
	}
	script.append(postrouting, rootRule(state.Settings))
	return script.String()
}

// renderedChains are all chains, from the shared one inwards.
func renderedChains(state ruleset.State, table ruleset.Table) []list {
	s := state.Settings
	all := policyChains(state, table)
	slices.Reverse(all)
	if s.Sources == policy.SourcesPods {
		all = slices.Insert(all, 1, list{s.PodsChain(), podsChainRules(s, table)})
	}
	if hasNode(s) {
		all = append(all, list{nodeChain(s), nodeRules(s, table)})
	}
	if hasSources(s, table) {
		all = append(all, list{sourcesChain(s), sourceRules(s, table)})
	}
	return all
}

// rootRule is the one rule that ip-masq adds to POSTROUTING.
func rootRule(s policy.Settings) rule {
	if s.Sources == policy.SourcesAll {
		return rule{"-m", "comment", "--comment", allRootComment(s), "-m", "addrtype", "!", "--dst-type", "LOCAL", "-j", s.Chain}
	}
	return rule{"-m", "comment", "--comment", podsRootComment, "-j", s.PodsChain()}
}

// allRootComment is the Kubernetes agent's, chain's name included.
func allRootComment(s policy.Settings) string {
	return "ip-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom " + s.Chain + " chain"
}

// list is a chain and the rules that it should have, in this order.
type list struct {
	name  string
	rules []rule
}

// policyChains are the chains whose rules say what the policy says of destinations, each behind those that it leads to, so that
// the shared chain is the last.
func policyChains(state ruleset.State, table ruleset.Table) []list {
	var all []list
	for _, group := range slices.Backward(table.Groups) {
		all = append(all, list{groupChain(state.Settings, group.Number), groupRules(state.Settings, table, group)})
	}
	rules := destinationRules(state.Settings, table)
	head, several := interfaceRules(state.Settings, state.OutputInterfaces)
	if several {
		all = append(all, list{interfacesChain(state.Settings), rules})
		rules = nil
	}
	return append(all, list{state.Settings.Chain, append(head, rules...)})
}

// destinationRules are the destinations, then masquerading for everything else.
func destinationRules(s policy.Settings, table ruleset.Table) []rule {
	rules := make([]rule, 0, len(table.Destinations)+1)
	for _, d := range table.Destinations {
		switch d.Verdict {
		case policy.Masquerade:
			rules = append(rules, askSources(s, table, join(destination(d.Prefix), notLocal(chosenComment)))...)
			rules = append(rules, masqueradeRules(s, destination(d.Prefix), exceptionComment)...)
		case policy.Translate:
			rules = append(rules, join(destination(d.Prefix), notLocal(groupName(d.Group)), rule{"-g", groupChain(s, d.Group)}))
		default:
			rules = append(rules, join(destination(d.Prefix), notLocal(keepComment), rule{"-j", "RETURN"}))
		}
	}
	rules = append(rules, askSources(s, table, notLocal(chosenComment))...)
	return append(rules, masqueradeRules(s, nil, masqueradeComment)...)
}

// masqueradeRules masquerade what match selects.
func masqueradeRules(s policy.Settings, match rule, text string) []rule {
	return portRules(s, match, notLocal(text), masquerade(s))
}

// target is the end of a rule that translates, to the kernel's choice of source ports or to those given.
type target func(ports string) rule

// portRules translate what match selects, and what is said behind the protocol. With port ranges each protocol chooses among them
// at random, in proportion to their sizes, and protocols without ports fall through to the last rule.
func portRules(s policy.Settings, match, what rule, to target) []rule {
	var rules []rule
	for _, protocol := range portProtocols {
		remaining := s.ToPorts.Size()
		for _, ports := range s.ToPorts {
			r := join(match, rule{"-p", protocol}, what, share(ports.Size(), remaining), to(ports.String()))
			rules = append(rules, r)
			remaining -= ports.Size()
		}
	}
	return append(rules, join(match, what, to("")))
}

func masquerade(s policy.Settings) target {
	return func(ports string) rule {
		r := rule{"-j", "MASQUERADE"}
		if ports != "" {
			r = append(r, "--to-ports", ports)
		}
		return randomly(s, r)
	}
}

func randomly(s policy.Settings, r rule) rule {
	if s.RandomFully {
		r = append(r, "--random-fully")
	}
	return r
}

// share matches size out of remaining packets. The kernel keeps a probability as a 31 bit fraction and -S prints that with
// eleven digits, so this prints the same to be comparable.
func share(size, remaining int) rule {
	if size >= remaining {
		return nil
	}
	kept := math.Round(float64(size)/float64(remaining)*(1<<31)) / (1 << 31)
	return rule{"-m", "statistic", "--mode", "random", "--probability", fmt.Sprintf("%.11f", kept)}
}

// podRules are the rules of the pods' chain. They go (-g) to the shared chain, so that a RETURN there leaves this chain too
// instead of walking the other pods' rules. With all sources there is no such chain: the pods are those that chose an address.
func podRules(s policy.Settings, table ruleset.Table) []rule {
	if s.Sources == policy.SourcesAll {
		return nil
	}
	rules := make([]rule, len(table.Pods))
	for i, pod := range table.Pods {
		rules[i] = podRule(s, table.Family, pod)
	}
	return rules
}

func podRule(s policy.Settings, family policy.Family, pod ruleset.Pod) rule {
	source := netip.PrefixFrom(pod.Address, family.Bits())
	return join(rule{"-s", source.String(), "!", "-d", family.Multicast().String()}, comment(podComment(pod)), rule{"-g", s.Chain})
}

func podComment(pod ruleset.Pod) string {
	return fmt.Sprintf("%s %s %s", podCommentPrefix, pod.Owner, pod.Label)
}

// destination matches a prefix; the whole address space needs no match, and -S prints none.
func destination(prefix netip.Prefix) rule {
	if prefix.Bits() == 0 {
		return nil
	}
	return rule{"-d", prefix.String()}
}

func comment(text string) rule { return rule{"-m", "comment", "--comment", text} }

func notLocal(text string) rule {
	return join(comment(text), rule{"-m", "addrtype", "!", "--dst-type", "LOCAL"})
}

func join(parts ...rule) rule {
	var out rule
	for _, part := range parts {
		out = append(out, part...)
	}
	return out
}
