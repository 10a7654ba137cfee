package iptables_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/backend/iptables"
	"github.com/ip-masq/ip-masq-cni/pkg/config"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// TestEqualsKubernetesAgent: for random files that use the old keys alone, `iptables -S` shows the chain that the Kubernetes agent
// would have made of the same file, rule by rule and in the same order. Its algorithm is written down below as its documentation
// and releases describe it; each file gets a chain of its own, so that one namespace holds them all.
//
// The words are those of the Kubernetes documentation. The agent's newest releases write others, and leave the match for
// local destinations to the root rule: without comments and that match, their rules are the same as well.
func TestEqualsKubernetesAgent(t *testing.T) {
	const files, seed = 200, 1
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 14))
			var ours, documented, newest [2]strings.Builder // by family
			seen := map[string]int{}
			for i := range files {
				c := randomOldConfig(r, fmt.Sprintf("C%03d", i))
				c.count(seen)
				text := iptables.Render(c.state(t))
				for at, f := range c.families() {
					fmt.Fprint(&ours[at], section(text, f))
					fmt.Fprint(&documented[at], c.kubernetes(f, documentedWords))
					fmt.Fprint(&newest[at], c.kubernetes(f, newestWords))
				}
			}
			for _, what := range []string{"defaults", "list", "[]", "no IPv4 in it", "no IPv6 in it", "IPv6", "ports", "link-local", "reserved", "not random"} {
				if seen[what] < 5 {
					t.Errorf("%q is rare: %v", what, seen)
				}
			}
			k := newKernel(t, kind)
			for at, f := range policyFamilies {
				got := k.load(f, ours[at].String())
				sameLines(t, f, got, newKernel(t, kind).load(f, documented[at].String()))
				sameLines(t, f, bare(got), bare(newKernel(t, kind).load(f, newest[at].String())))
			}
		})
	}
}

var policyFamilies = []policy.Family{policy.IPv4, policy.IPv6}

// oldConfig is a file of the old keys, and the old flags.
type oldConfig struct {
	chain                            string
	cidrs                            []string // nil: the file has no list
	linkLocal, linkLocal6            bool
	ipv6, allReserved, withoutRandom bool
	toPorts                          string
}

func randomOldConfig(r *rand.Rand, chain string) oldConfig {
	one := func(of int) bool { return r.IntN(of) == 0 }
	c := oldConfig{
		chain: chain, linkLocal: one(4), linkLocal6: one(4), ipv6: one(2), allReserved: one(4), withoutRandom: one(4),
		toPorts: []string{"", "", "1024-29999", "1024-29999,32768-65535", "1024-29999,32768-49151,61000-65535", "1024,65535"}[r.IntN(6)],
	}
	if one(4) {
		return c
	}
	c.cidrs = []string{}
	only := r.IntN(4) // 0: IPv4 alone, 1: IPv6 alone
	for range r.IntN(4) * r.IntN(7) {
		bytes := make([]byte, 4)
		if c.ipv6 && only > 0 && (only == 1 || one(2)) {
			bytes = make([]byte, 16)
		}
		for i := range bytes {
			bytes[i] = byte(r.Uint32())
		}
		addr, _ := netip.AddrFromSlice(bytes)
		prefix, _ := addr.Unmap().Prefix(r.IntN(addr.BitLen() + 1))
		if text := prefix.String(); !slices.Contains(c.cidrs, text) { // one that is listed twice gets one rule here, and two there
			c.cidrs = append(c.cidrs, text)
		}
	}
	return c
}

func (c oldConfig) count(seen map[string]int) {
	has4, has6 := len(c.of(policy.IPv4)) > 0, len(c.of(policy.IPv6)) > 0
	for what, is := range map[string]bool{
		"defaults": c.cidrs == nil, "list": len(c.cidrs) > 0, "[]": c.cidrs != nil && len(c.cidrs) == 0, "no IPv4 in it": has6 && !has4,
		"no IPv6 in it": c.ipv6 && has4 && !has6, "IPv6": c.ipv6, "ports": c.toPorts != "", "link-local": c.linkLocal || c.linkLocal6,
		"reserved": c.allReserved, "not random": c.withoutRandom,
	} {
		if is {
			seen[what]++
		}
	}
}

func (c oldConfig) families() []policy.Family { return policy.Settings{IPv6: c.ipv6}.Families() }

// of are the listed prefixes of one family.
func (c oldConfig) of(f policy.Family) (all []string) {
	for _, text := range c.cidrs {
		if policy.FamilyOf(netip.MustParsePrefix(text).Addr()) == f {
			all = append(all, text)
		}
	}
	return all
}

// state goes the way of the product: the file is read, and becomes the desired state.
func (c oldConfig) state(t *testing.T) ruleset.State {
	t.Helper()
	file := map[string]any{"masqLinkLocal": c.linkLocal, "masqLinkLocalIPv6": c.linkLocal6, "resyncInterval": "5s", "cidrLimit": 64}
	if c.cidrs != nil {
		file["nonMasqueradeCIDRs"] = c.cidrs
	}
	data, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	ports, err := policy.ParsePortRanges(c.toPorts)
	if err != nil {
		t.Fatal(err)
	}
	s := policy.Settings{Chain: c.chain, Sources: policy.SourcesAll, IPv6: c.ipv6, RandomFully: !c.withoutRandom, ToPorts: ports}
	read, _, err := config.Parse("ip-masq-agent", data, config.Options{EnableIPv6: c.ipv6, AllReserved: c.allReserved, Settings: s})
	if err != nil {
		t.Fatalf("%s\n%s", err, data)
	}
	return ruleset.Build(read.Policy(), nil, ruleset.Node{})
}

// agentWords are what releases of the Kubernetes agent write differently.
type agentWords struct{ keep, masquerade, notLocal string }

var (
	documentedWords = agentWords{
		"ip-masq-agent: cluster-local traffic should not be subject to MASQUERADE",
		"ip-masq-agent: outbound traffic should be subject to MASQUERADE (this match must come after cluster-local CIDR matches)",
		" -m addrtype ! --dst-type LOCAL",
	}
	newestWords = agentWords{
		"ip-masq-agent: local traffic is not subject to MASQUERADE",
		"ip-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)",
		"",
	}
)

// kubernetes is what the Kubernetes agent gives to iptables-restore for the file and one family: link-local first, then the
// prefixes of the family as they are listed, then masquerading, for each protocol with ports by range.
//
// In one thing this project differs on purpose: there a list, and the default as well, counts for both families, so that all
// IPv6 is masqueraded unless IPv6 prefixes are listed. Here a list without a prefix of a family leaves that family's default.
func (c oldConfig) kubernetes(f policy.Family, w agentWords) string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	keep := func(cidr string) {
		say("-A %s -m comment --comment %q%s -d %s -j RETURN", c.chain, w.keep, w.notLocal, cidr)
	}
	say(":%s - [0:0]", c.chain)
	say("-A POSTROUTING -m comment --comment \"ip-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom %s chain\" -m addrtype ! --dst-type LOCAL -j %s", c.chain, c.chain)
	switch {
	case f == policy.IPv4 && !c.linkLocal:
		keep("169.254.0.0/16")
	case f == policy.IPv6 && !c.linkLocal6:
		keep("fe80::/10")
	}
	listed := c.of(f)
	switch {
	case len(listed) > 0 || c.cidrs != nil && len(c.cidrs) == 0:
	case f == policy.IPv6:
		listed = []string{"fc00::/7"} // on purpose
	case f == policy.IPv4:
		listed = []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"}
		if c.allReserved {
			listed = append(listed, "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4")
		}
	}
	for _, cidr := range listed {
		keep(cidr)
	}
	random := " --random-fully"
	if c.withoutRandom {
		random = ""
	}
	for _, protocol := range []string{"tcp", "udp", "sctp"} {
		remaining := 0
		ranges := strings.FieldsFunc(c.toPorts, func(r rune) bool { return r == ',' })
		for _, ports := range ranges {
			remaining += portsIn(ports)
		}
		for _, ports := range ranges {
			chance := ""
			if size := portsIn(ports); size < remaining {
				chance = fmt.Sprintf(" -m statistic --mode random --probability %v", float64(size)/float64(remaining))
			}
			say("-A %s -m comment --comment %q%s -j MASQUERADE%s -p %s%s --to-ports %s", c.chain, w.masquerade, w.notLocal, random, protocol, chance, ports)
			remaining -= portsIn(ports)
		}
	}
	say("-A %s -m comment --comment %q%s -j MASQUERADE%s", c.chain, w.masquerade, w.notLocal, random)
	return b.String()
}

func portsIn(text string) int {
	first, last := 0, 0
	if n, _ := fmt.Sscanf(text, "%d-%d", &first, &last); n == 1 {
		return 1
	}
	return last - first + 1
}

// section is one family's part of what Render prints, without what is for iptables-restore.
func section(text string, f policy.Family) string {
	var lines []string
	of := false
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "# "):
			of = strings.TrimSpace(line[2:]) == f.String()
		case of && (strings.HasPrefix(line, "-A") || strings.HasPrefix(line, ":")):
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// load replaces table nat by the rules and lists them.
func (k *kernel) load(f policy.Family, rules string) []string {
	k.Helper()
	file := filepath.Join(k.TempDir(), "rules")
	k.must(os.WriteFile(file, []byte("*nat\n"+rules+"COMMIT\n"), 0o644), "write")
	variant := map[policy.Family]string{policy.IPv4: "iptables", policy.IPv6: "ip6tables"}[f] + strings.TrimPrefix(string(k.b.Kind()), "iptables")
	listed := k.sh(fmt.Sprintf("%s-restore <%s && %s -w -t nat -S", variant, file, variant))
	return strings.Split(strings.TrimSpace(listed), "\n")
}

var (
	commentMatch = regexp.MustCompile(` -m comment --comment "[^"]*"`)
	localMatch   = " -m addrtype ! --dst-type LOCAL"
)

// bare leaves out of the rules what releases of the Kubernetes agent write differently.
func bare(lines []string) []string {
	out := make([]string, len(lines))
	for i, line := range lines {
		out[i] = commentMatch.ReplaceAllString(line, "")
		if !strings.HasPrefix(line, "-A POSTROUTING") {
			out[i] = strings.Replace(out[i], localMatch, "", 1)
		}
	}
	return out
}

func sameLines(t *testing.T, f policy.Family, got, want []string) {
	t.Helper()
	if len(want) < 500 {
		t.Errorf("%s: %d rules are too few", f, len(want))
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("%s line %d:\ngot  %q\nwant %q", f, i, got[min(i, len(got)):min(i+3, len(got))], want[min(i, len(want)):min(i+3, len(want))])
		}
	}
}
