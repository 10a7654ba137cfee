package iptables

import (
	"fmt"
	"math"
	"net/netip"
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

// portProtocols are those whose source port MASQUERADE can choose.
var portProtocols = []string{"tcp", "udp", "sctp"}

// Render prints the state as the input of iptables-restore --noflush, one text per family, IPv4 first. It is what Apply
// leaves in the kernel, not what it sends: Apply sends the difference.
func Render(state ruleset.State) string {
	var b strings.Builder
	for _, table := range state.Tables {
		fmt.Fprintf(&b, "# %s\n%s", table.Family, renderTable(state.Settings, table))
	}
	return b.String()
}

func renderTable(s policy.Settings, table ruleset.Table) string {
	script := newScript()
	script.declare(s.Chain)
	if s.Sources == policy.SourcesPods {
		script.declare(s.PodsChain())
	}
	script.appendAll(s.Chain, chainRules(s, table))
	script.appendAll(s.PodsChain(), podRules(s, table))
	script.append(postrouting, rootRule(s))
	return script.String()
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

// chainRules are the rules of the shared chain: the destinations, then masquerading for everything else.
func chainRules(s policy.Settings, table ruleset.Table) []rule {
	rules := make([]rule, 0, len(table.Destinations)+1)
	for _, d := range table.Destinations {
		if d.Verdict == policy.Masquerade {
			rules = append(rules, masqueradeRules(s, destination(d.Prefix), exceptionComment)...)
			continue
		}
		rules = append(rules, join(destination(d.Prefix), notLocal(keepComment), rule{"-j", "RETURN"}))
	}
	return append(rules, masqueradeRules(s, nil, masqueradeComment)...)
}

// masqueradeRules masquerade what match selects. With port ranges each protocol chooses among them at random, in proportion
// to their sizes, and protocols without ports fall through to the last rule.
func masqueradeRules(s policy.Settings, match rule, comment string) []rule {
	var rules []rule
	for _, protocol := range portProtocols {
		remaining := s.ToPorts.Size()
		for _, ports := range s.ToPorts {
			r := join(match, rule{"-p", protocol}, notLocal(comment), share(ports.Size(), remaining), masquerade(s, "--to-ports", ports.String()))
			rules = append(rules, r)
			remaining -= ports.Size()
		}
	}
	return append(rules, join(match, notLocal(comment), masquerade(s)))
}

func masquerade(s policy.Settings, options ...string) rule {
	r := append(rule{"-j", "MASQUERADE"}, options...)
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
// instead of walking the other pods' rules.
func podRules(s policy.Settings, table ruleset.Table) []rule {
	rules := make([]rule, len(table.Pods))
	for i, pod := range table.Pods {
		rules[i] = podRule(s, table.Family, pod)
	}
	return rules
}

func podRule(s policy.Settings, family policy.Family, pod ruleset.Pod) rule {
	source := netip.PrefixFrom(pod.Address, family.Bits())
	comment := fmt.Sprintf("%s %s %s", podCommentPrefix, pod.Owner, pod.Label)
	return rule{
		"-s", source.String(), "!", "-d", family.Multicast().String(),
		"-m", "comment", "--comment", comment, "-g", s.Chain,
	}
}

// destination matches a prefix; the whole address space needs no match, and -S prints none.
func destination(prefix netip.Prefix) rule {
	if prefix.Bits() == 0 {
		return nil
	}
	return rule{"-d", prefix.String()}
}

func notLocal(comment string) rule {
	return rule{"-m", "comment", "--comment", comment, "-m", "addrtype", "!", "--dst-type", "LOCAL"}
}

func join(parts ...rule) rule {
	var out rule
	for _, part := range parts {
		out = append(out, part...)
	}
	return out
}
