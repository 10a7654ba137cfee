package iptables_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/iptables"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

var update = flag.Bool("update", false, "write the golden files")

func addresses(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// goldenNode has two addresses for the first group and none for the others.
var goldenNode = addresses("192.0.2.1", "192.0.2.2", "192.0.2.3", "198.18.0.1", "2001:db8::1", "2001:db8::2")

func goldenPods(n int) (all []attachment.Attachment) {
	for i := range n {
		all = append(all, attachment.Attachment{
			Owner:     attachment.Owner{Network: "pods", ContainerID: string(rune('a' + i)), IfName: "eth0"},
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 244, 0, byte(2 + i)}), netip.MustParseAddr("fd00:244::" + string(rune('2'+i)))},
		})
	}
	return all
}

func goldenEgress(p *policy.Policy) {
	p.NonMasquerade = prefixes("10.0.0.0/8", "fc00::/7")
	p.Masquerade = prefixes("10.9.0.0/16")
	p.Egress = []policy.Egress{
		{Destinations: prefixes("203.0.113.0/24", "10.9.9.0/24", "2001:db8:113::/48"), SourceAddresses: prefixes("192.0.2.0/30", "2001:db8::/126")},
		{Destinations: prefixes("198.51.100.0/24", "2001:db8:100::/48"), SourceAddresses: prefixes("100.64.0.0/10")},
		{Destinations: prefixes("203.0.113.7/32", "2001:db8:113::7/128"), SourceAddresses: prefixes("100.64.0.0/10"), WhenMissing: policy.MissingDrop},
		{Destinations: prefixes("0.0.0.0/0"), SourceAddresses: prefixes("198.18.0.0/15")},
	}
}

// goldenStates are named as their files.
var goldenStates = map[string]func(*policy.Policy){
	"egress": goldenEgress,
	"egress-ports": func(p *policy.Policy) {
		goldenEgress(p)
		p.Settings.ToPorts = policy.PortRanges{{First: 1024, Last: 2047}, {First: 4096, Last: 8191}}
	},
	"interface":       func(p *policy.Policy) { p.OutputInterfaces = policy.Interfaces{"bond*"} },
	"interfaces-less": func(p *policy.Policy) { p.OutputInterfaces = policy.Interfaces{"!wg0", "!tun*"} },
	"interfaces": func(p *policy.Policy) {
		p.OutputInterfaces = policy.Interfaces{"eth0", "bond*", "!bond7"}
		p.Egress = []policy.Egress{{Destinations: prefixes("203.0.113.0/24"), SourceAddresses: prefixes("198.18.0.0/15")}}
	},
	"node-traffic": func(p *policy.Policy) { p.Settings.NodeTraffic = true },
	"translated": func(p *policy.Policy) {
		goldenEgress(p)
		p.Settings.PodAnnotations = policy.AllowedAnnotations([]string{policy.SourceAddressesAnnotation})
	},
}

func goldenState(name string) ruleset.State {
	s := policy.DefaultSettings()
	s.IPv6 = true
	p := policy.Default(s)
	goldenStates[name](&p)
	pods := goldenPods(3)
	state := ruleset.Build(p, pods[:2], ruleset.Node{Addresses: goldenNode, OptedOut: pods[2:]})
	if name == "translated" {
		state.Tables[0].Pods[1].Translated = netip.MustParseAddr("198.18.0.1")
	}
	return state
}

// TestGolden shows the rules of what the policy can say beside prefixes, and what the kernel's two variants print of them.
func TestGolden(t *testing.T) {
	for name := range goldenStates {
		path := filepath.Join("testdata", name+".golden")
		got := iptables.Render(goldenState(name))
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil { //nolint:gosec // for people
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if diff := cmp.Diff(string(want), got); err != nil || diff != "" {
			t.Errorf("%s: make golden writes it anew (-want +got): %v\n%s", path, err, diff)
		}
	}
}

// TestKernelHoldsGolden applies each state on both variants, from nothing, from each other, and once more, which finds nothing to
// do; iptables prints what Render does, and nothing else is left of the state before.
func TestKernelHoldsGolden(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			for _, name := range slices.Sorted(maps.Keys(goldenStates)) {
				k := newKernel(t, kind)
				k.settle(goldenState(name))
				k.holds(goldenState(name))
			}
			k := newKernel(t, kind)
			for _, name := range slices.Sorted(maps.Keys(goldenStates)) {
				k.s = goldenState(name).Settings
				k.settle(goldenState(name))
				k.holdsAll(goldenState(name))
			}
			k.must(k.in(func(ctx context.Context) error { return k.b.RemoveAll(ctx) }), "RemoveAll")
			if rules := k.rules(); strings.Contains(rules, "MASQ") {
				t.Errorf("RemoveAll left\n%s", rules)
			}
		})
	}
}

// holds compares what iptables prints of a state's chains with what Render does, rule by rule.
func (k *kernel) holds(want ruleset.State) {
	k.Helper()
	if diff := cmp.Diff(k.printed(want, false), k.saved()); diff != "" {
		k.Errorf("the kernel does not hold what Render prints (-render +kernel):\n%s", diff)
	}
}

// holdsAll is holds where single rules were changed, whose order means nothing.
func (k *kernel) holdsAll(want ruleset.State) {
	k.Helper()
	if diff := cmp.Diff(k.printed(want, true), slices.Sorted(slices.Values(k.saved()))); diff != "" {
		k.Errorf("the kernel does not hold what Render prints (-render +kernel):\n%s", diff)
	}
}

func (k *kernel) printed(want ruleset.State, sorted bool) (lines []string) {
	lines = grouped(iptables.Render(want))
	if sorted {
		slices.Sort(lines)
	}
	return lines
}

// saved is table nat of both families, without what is always there.
func (k *kernel) saved() []string {
	k.Helper()
	return grouped(k.sh("$S -t nat; $S6 -t nat"))
}

// grouped brings the output of iptables-save into an order that does not depend on that of the chains.
func grouped(text string) (lines []string) {
	var sections [][]string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "*nat" {
			sections = append(sections, nil)
		}
		if builtin := strings.HasPrefix(line, ":") && !strings.Contains(line, " - "); len(sections) > 0 && !builtin && (strings.HasPrefix(line, ":") || strings.HasPrefix(line, "-A")) {
			sections[len(sections)-1] = append(sections[len(sections)-1], line)
		}
	}
	for i, section := range sections {
		slices.SortStableFunc(section, func(a, b string) int { return byChain(strings.Fields(a), strings.Fields(b)) })
		for _, line := range section {
			lines = append(lines, fmt.Sprint(4+2*i, " ", line))
		}
	}
	return lines
}

// byChain orders declarations before rules, and rules by their chain.
func byChain(a, b []string) int {
	if a[0] != b[0] || a[0] != "-A" {
		return strings.Compare(a[0], b[0])
	}
	return strings.Compare(a[1], b[1])
}
