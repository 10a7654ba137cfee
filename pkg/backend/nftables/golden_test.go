package nftables

import (
	"context"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

var update = flag.Bool("update", false, "write the golden files")

// goldenStates are named as their files.
var goldenStates = map[string]func() ruleset.State{
	"default": func() ruleset.State { return goldenState(policy.DefaultSettings(), goldenPod("10.244.0.5")) },
	"dual-stack": func() ruleset.State {
		s := policy.DefaultSettings()
		s.IPv6 = true
		return goldenState(s, goldenPod("10.244.0.5", "fd00:244::5"), goldenPod("10.244.0.6", "fd00:244::6"))
	},
	"all-sources": func() ruleset.State {
		s := policy.DefaultSettings()
		s.IPv6, s.Sources = true, policy.SourcesAll
		return goldenState(s)
	},
	"ports": func() ruleset.State {
		s := policy.DefaultSettings()
		s.Chain, s.RandomFully = "ANOTHER-CHAIN", false
		s.ToPorts = policy.PortRanges{{First: 1024, Last: 29999}, {First: 32768, Last: 49151}, {First: 61000, Last: 61000}}
		return goldenState(s, goldenPod("10.244.0.5"))
	},
	"exceptions": func() ruleset.State {
		p := policy.Default(policy.DefaultSettings())
		p.NonMasquerade = append(p.NonMasquerade, policy.ReservedRanges()...)
		p.Masquerade = prefixes("10.50.0.0/16", "192.168.7.7/32", "172.16.0.0/13")
		return ruleset.Build(p, nil, ruleset.Node{})
	},
	"egress": func() ruleset.State {
		s := policy.DefaultSettings()
		s.IPv6 = true
		return goldenEgress(s, goldenPod("10.244.0.5", "fd00:244::5"))
	},
	"egress-ports": func() ruleset.State {
		s := policy.DefaultSettings()
		s.IPv6, s.ToPorts = true, policy.PortRanges{{First: 1024, Last: 29999}, {First: 61000, Last: 61000}}
		return goldenEgress(s)
	},
	"interfaces": func() ruleset.State {
		p := policy.Default(policy.DefaultSettings())
		p.OutputInterfaces = policy.Interfaces{"eth0", "bond*", "!wg0", "!tun*"}
		return ruleset.Build(p, nil, ruleset.Node{})
	},
	"interfaces-dual-stack": func() ruleset.State {
		s := policy.DefaultSettings()
		s.IPv6, s.Sources = true, policy.SourcesAll
		p := policy.Default(s)
		p.OutputInterfaces = policy.Interfaces{"!wg0"}
		return ruleset.Build(p, nil, ruleset.Node{})
	},
	"node-traffic": func() ruleset.State {
		s := policy.DefaultSettings()
		s.IPv6, s.NodeTraffic = true, true
		optedOut := []attachment.Attachment{goldenPod("10.244.0.6", "fd00:244::6")}
		return ruleset.Build(policy.Default(s), []attachment.Attachment{goldenPod("10.244.0.5", "fd00:244::5")}, ruleset.Node{OptedOut: optedOut})
	},
	"chosen-sources": func() ruleset.State {
		s := policy.DefaultSettings()
		s.PodAnnotations = policy.AllowedAnnotations([]string{policy.SourceAddressesAnnotation})
		s.ToPorts = policy.PortRanges{{First: 1024, Last: 29999}}
		state := goldenEgress(s, goldenPod("10.244.0.5"), goldenPod("10.244.0.6"))
		state.Tables[0].Pods[1].Translated = netip.MustParseAddr("192.0.2.9")
		return state
	},
}

// goldenEgress has a group with one address, one with a pool in which no address has a share of its own, one that lacks its addresses and
// masquerades, and one that drops; and prefixes of either inside those of others.
func goldenEgress(s policy.Settings, pods ...attachment.Attachment) ruleset.State {
	p := policy.Default(s)
	p.Masquerade = prefixes("203.0.113.64/26")
	p.Egress = []policy.Egress{
		{Destinations: prefixes("203.0.113.0/24", "10.77.0.0/16", "2001:db8:77::/48"), SourceAddresses: prefixes("192.0.2.0/28", "2001:db8::/64")},
		{Destinations: prefixes("198.51.100.0/25", "198.51.100.128/25", "2001:db8:78::1/128"), SourceAddresses: prefixes("192.0.2.128/25", "2001:db8:1::/64")},
		{Destinations: prefixes("203.0.113.7/32", "0.0.0.0/0"), SourceAddresses: prefixes("100.64.0.0/10", "100.128.0.1/32")},
		{Destinations: prefixes("8.8.8.8/32", "2001:4860::/32"), SourceAddresses: prefixes("100.64.0.0/10", "fd00::/8"), WhenMissing: policy.MissingDrop},
	}
	if !s.IPv6 {
		p.Egress[0].Destinations, p.Egress[1].Destinations = p.Egress[0].Destinations[:2], p.Egress[1].Destinations[:2]
		p.Egress[3].Destinations = p.Egress[3].Destinations[:1]
	}
	return ruleset.Build(p, pods, ruleset.Node{Addresses: addresses(
		"192.0.2.1", "192.0.2.129", "192.0.2.130", "192.0.2.131", "10.0.0.1", "2001:db8::1", "2001:db8:1::1", "2001:db8:1::2",
	)})
}

func goldenState(s policy.Settings, pods ...attachment.Attachment) ruleset.State {
	return ruleset.Build(policy.Default(s), pods, ruleset.Node{})
}

func goldenPod(texts ...string) attachment.Attachment {
	return attachment.Attachment{Owner: attachment.Owner{Network: "net", ContainerID: texts[0], IfName: "eth0"}, Addresses: addresses(texts...)}
}

func golden(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".nft"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestRender(t *testing.T) {
	for name, state := range goldenStates {
		t.Run(name, func(t *testing.T) {
			got := Render(state())
			if *update {
				if err := os.WriteFile(filepath.Join("testdata", name+".nft"), []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(golden(t, name), got); diff != "" {
				t.Errorf("-golden +rendered:\n%s", diff)
			}
		})
	}
}

// TestKernelHoldsGolden compares the same texts with what nft finds in the kernel.
func TestKernelHoldsGolden(t *testing.T) {
	netnstest.Require(t, "nft")
	for name, state := range goldenStates {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.sync(state())
			n.holds(golden(t, name))
		})
	}
}

// TestEveryStateFollowsEveryOther goes from each golden state to each, by both ways to change destinations.
func TestEveryStateFollowsEveryOther(t *testing.T) {
	netnstest.Require(t, "nft")
	for _, way := range []changes{InPlace, SecondSet} {
		n := newNode(t)
		n.Backend = NewWith(way)
		for _, from := range goldenStates {
			for name, to := range goldenStates {
				n.sync(from())
				n.sync(to())
				n.holds(golden(t, name))
			}
		}
	}
}

// TestMendsTable lets other software work on our table with nft.
func TestMendsTable(t *testing.T) {
	netnstest.Require(t, "nft")
	for _, script := range []string{
		"delete table inet ip-masq-agent",
		"flush set inet ip-masq-agent keep4",
		"flush set inet ip-masq-agent pods6",
		"add element inet ip-masq-agent keep4 { 8.8.8.0/24 }",
		"delete element inet ip-masq-agent keep4 { 10.0.0.0/8 }",
		"add element inet ip-masq-agent pods4 { 10.0.0.1 }",
		"add element inet ip-masq-agent pods4 { 10.0.0.1 comment \"mine\" }",
		"add rule inet ip-masq-agent IP-MASQ-AGENT drop",
		"insert rule inet ip-masq-agent postrouting accept",
		"flush chain inet ip-masq-agent IP-MASQ-AGENT",
		"flush table inet ip-masq-agent",
		"add chain inet ip-masq-agent foreign; add rule inet ip-masq-agent foreign ip daddr @keep4 accept; " +
			"insert rule inet ip-masq-agent postrouting jump foreign",
		// Other software's objects in our table, each leading to the next.
		"table inet ip-masq-agent { chain zz { accept; }; chain bb { jump zz; }; chain aa { jump bb; }; }",
		"table inet ip-masq-agent { chain zz { }; map m { type ipv4_addr : verdict; elements = { 1.2.3.4 : jump zz }; }; " +
			"chain aa { ip saddr vmap @m; ip saddr vmap { 1.2.3.5 : goto zz }; }; }",
		"table inet ip-masq-agent { chain idle { type filter hook forward priority 0; policy drop; }; }",
		"add set inet ip-masq-agent theirs { type ipv4_addr; }; add chain inet ip-masq-agent aa; " + // nft 0.9.8 looks for sets only by add
			"add rule inet ip-masq-agent aa ip saddr @pods4 drop; add rule inet ip-masq-agent aa ip6 daddr @keep6 drop; " +
			"add rule inet ip-masq-agent aa ip saddr @theirs drop; add rule inet ip-masq-agent aa goto IP-MASQ-AGENT",
		"delete chain inet ip-masq-agent postrouting; flush chain inet ip-masq-agent IP-MASQ-AGENT; delete set inet ip-masq-agent keep4; " +
			"add map inet ip-masq-agent keep4 { type ipv4_addr : verdict; }",
		"add table inet ip-masq-agent { flags dormant; }",
		"delete table inet ip-masq-agent; add table inet ip-masq-agent; " +
			"add set inet ip-masq-agent keep4 { type ipv6_addr; }; " +
			"add chain inet ip-masq-agent postrouting { type filter hook postrouting priority 0; }",
	} {
		t.Run(script, func(t *testing.T) { mends(t, "dual-stack", script) })
	}
	for _, test := range [][2]string{
		{"egress", "flush chain inet ip-masq-agent egress4/keep"},
		{"egress", "flush chain inet ip-masq-agent egress4/192.0.2.0/28"},
		{"egress", "insert rule inet ip-masq-agent egress6/fd00__/8/drop accept"},
		{"egress", "flush map inet ip-masq-agent verdicts4"},
		{"egress", "flush map inet ip-masq-agent pool4/192.0.2.128/25/c26b093f"},
		{"egress", "delete element inet ip-masq-agent verdicts4 { 10.77.0.0/16 }"},
		{"egress", "delete element inet ip-masq-agent verdicts4 { 10.77.0.0/16 }; add element inet ip-masq-agent verdicts4 { 10.77.0.0/16 : goto egress4/keep }"},
		{"egress", "delete element inet ip-masq-agent verdicts4 { 10.77.0.0/16 }; add element inet ip-masq-agent verdicts4 { 10.77.0.0/16 : jump egress4/192.0.2.0/28 }"},
		{"egress", "delete element inet ip-masq-agent pool4/192.0.2.128/25/c26b093f { 0.0.0.3 }; add element inet ip-masq-agent pool4/192.0.2.128/25/c26b093f { 0.0.0.3 : 192.0.2.7 }"},
		{"egress", "add chain inet ip-masq-agent egress4/foreign; add element inet ip-masq-agent verdicts6 { 2001:db8:9::/48 : goto egress4/foreign }"},
		{"egress", "flush chain inet ip-masq-agent IP-MASQ-AGENT; delete map inet ip-masq-agent verdicts4; " +
			"add set inet ip-masq-agent verdicts4 { type ipv4_addr; flags interval; }"},
		{"egress", "flush table inet ip-masq-agent"},
		{"interfaces-dual-stack", "flush chain inet ip-masq-agent IP-MASQ-AGENT"},
		{"node-traffic", "flush set inet ip-masq-agent optedout4"},
		{"node-traffic", "add element inet ip-masq-agent optedout6 { fd00:244::99 }"},
		{"node-traffic", "flush chain inet ip-masq-agent postrouting; add rule inet ip-masq-agent postrouting ip saddr @pods4 goto IP-MASQ-AGENT"},
		{"chosen-sources", "flush map inet ip-masq-agent sources4"},
		{"chosen-sources", "add element inet ip-masq-agent sources4 { 10.244.0.5 : 192.0.2.9 }"},
		{"chosen-sources", "delete element inet ip-masq-agent sources4 { 10.244.0.6 }; add element inet ip-masq-agent sources4 { 10.244.0.6 : 192.0.2.10 }"},
	} {
		t.Run(test[0]+": "+test[1], func(t *testing.T) { mends(t, test[0], test[1]) })
	}
}

// mends breaks one of the golden states, which Diff tells and Apply makes good.
func mends(t *testing.T, state, script string) {
	t.Helper()
	for _, way := range []changes{InPlace, SecondSet} {
		n := newNode(t)
		n.Backend = NewWith(way)
		want := goldenStates[state]()
		n.sync(want)
		n.Run(t, "nft", script)
		if got, err := n.observe(); err == nil && len(n.Diff(got, want)) == 0 {
			t.Error("Diff tells nothing")
		}
		n.sync(want)
		n.holds(golden(t, state))
	}
}

// node is a network namespace to work in.
type node struct {
	*netnstest.Space
	*Backend
	t *testing.T
}

func newNode(t *testing.T) node { return node{netnstest.NewSpace(t, "nftables"), New(), t} }

func (n node) observe() (got backend.Observed, err error) {
	err = n.Do(func() error {
		got, err = n.Observe(context.Background(), policy.DefaultSettings(), families...)
		return err
	})
	return got, err
}

// sync observes and applies, and then once more, which must not write.
func (n node) sync(want ruleset.State) {
	n.t.Helper()
	for _, again := range []bool{false, true} {
		err := n.Do(func() error {
			got, err := n.Observe(context.Background(), want.Settings, want.Settings.Families()...)
			if err != nil {
				return err
			}
			changed, err := n.Apply(context.Background(), got, want)
			if again && changed {
				n.t.Error("Apply writes although nothing changed")
			}
			return err
		})
		if err != nil {
			n.t.Fatal(err)
		}
	}
}

// holds compares our table word by word, whichever of the two sets or maps of destinations is in use; chains and sets come in the order in which they were made.
func (n node) holds(want string) {
	n.t.Helper()
	got := n.Run(n.t, "nft", "-s", "list", "table", "inet", tableName)
	got = strings.NewReplacer("keep4.b", "keep4", "keep6.b", "keep6", "verdicts4.b", "verdicts4", "verdicts6.b", "verdicts6").Replace(got)
	got = counted.ReplaceAllString(got, "counter")
	got = lastRange.ReplaceAllStringFunc(got, asPrefix)
	if diff := cmp.Diff(blocks(want), blocks(got)); diff != "" {
		n.t.Errorf("-golden +kernel:\n%s", diff)
	}
}

// counted is what a counter counted, which nft 0.9.8 prints in spite of -s where a set counts.
var counted = regexp.MustCompile(`counter packets \d+ bytes \d+`)

// lastRange is a range that ends with the last address of all. nft before 1.0 prints it as a range also where it is a prefix.
var lastRange = regexp.MustCompile(`[0-9a-f.:]+-(255\.255\.255\.255|ffff(:ffff){7})`)

func asPrefix(text string) string {
	first := netip.MustParseAddr(strings.Split(text, "-")[0])
	for bits := range first.BitLen() {
		if p := netip.PrefixFrom(first, bits); p.Masked().Addr() == first && !last(p).Next().IsValid() {
			return p.String()
		}
	}
	return text
}

// blocks splits a table into its sets and chains by name, with single spaces.
func blocks(table string) map[string]string {
	out := map[string]string{}
	for _, block := range strings.Split("\n"+table, "\n\t}") {
		words := strings.Fields(strings.TrimPrefix(block, "\ntable inet "+tableName+" {"))
		if len(words) > 2 {
			out[words[0]+" "+words[1]] = strings.Join(words, " ")
		}
	}
	return out
}
