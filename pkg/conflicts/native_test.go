package conflicts

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// loadNative adds rules by nft, whose grammar wants a line to end between two closing braces.
func loadNative(t *testing.T, space *netnstest.Space, rules string) {
	t.Helper()
	load(t, space, strings.ReplaceAll(rules, "} }", "}\n}"), "nft", "-f", "-")
}

// TestNative holds every answer against a packet, with our rules in iptables-nft.
func TestNative(t *testing.T) {
	s := newScene(t, backend.IPTablesNFT)
	s.ours(t)
	for _, test := range nativeTests {
		t.Run(test.name, func(t *testing.T) {
			loadNative(t, s.Space, test.rules)
			if diff := cmp.Diff(test.want, brief(mustFind(t, s.Space, s.query()))); diff != "" {
				t.Errorf("conflicts (-want +got):\n%s", diff)
			}
			s.keeps(t, s.Corp.IPv4, !test.spoiled)
			loadNative(t, s.Space, "flush ruleset")
			s.ours(t)
			s.keeps(t, s.Corp.IPv4, true)
		})
	}
}

// TestNativeRuleInPOSTROUTING has a rule that iptables cannot print, and beside it rules of iptables-nft of every kind.
func TestNativeRuleInPOSTROUTING(t *testing.T) {
	s := newScene(t, backend.IPTablesNFT)
	load(t, s.Space, script(kubeProxy+"-A POSTROUTING -s 10.244.0.0/16 -d 192.0.2.0/24 -j ACCEPT\n"+
		"-A POSTROUTING -m addrtype --dst-type LOCAL -j MASQUERADE\n"+flannel), "iptables-nft-restore", "--noflush")
	loadNative(t, s.Space, "insert rule ip nat POSTROUTING ip daddr { 10.99.0.2, 10.99.0.3 } masquerade")
	s.ours(t)
	want := []string{
		"unknown: nftables table ip nat chain POSTROUTING",
		"unknown: nftables table ip nat chain POSTROUTING",
		"flannel: iptables-nft table nat chain FLANNEL-POSTRTG rule 5", // this chain can be printed
	}
	if diff := cmp.Diff(want, brief(mustFind(t, s.Space, s.query()))); diff != "" {
		t.Errorf("conflicts (-want +got):\n%s", diff)
	}
}

// TestText shows how a rule of the kernel reads.
func TestText(t *testing.T) {
	netnstest.Require(t, "nft")
	space := netnstest.NewSpace(t, "host")
	loadNative(t, space, "table inet x { chain z { }\n chain y { "+`
		ip saddr 10.244.0.0/17 ip daddr != 224.0.0.0/4 tcp dport 80 masquerade random comment "why not"
		meta mark & 0x7 != 0x4 fib daddr type != local oifname != "lo" ip6 saddr fd00::/8 masquerade
		meta mark 0 ip saddr . ip daddr { 10.244.0.5 . 1.2.3.4 } snat ip to 1.2.3.4
		oifname "eth*" ct state new masquerade
		ct mark 0 ip daddr 10.0.0.0/9 notrack
		ip6 daddr & ffff::ff == ffff::ff masquerade
		iifname vmap { "a" : jump z, "b" : accept }
		meta mark set 0x7 goto z
	} }`)
	want := map[policy.Family][]string{
		policy.IPv4: {
			`ip saddr 10.244.0.0/17 ip daddr != 224.0.0.0/4 ... masquerade comment "why not"`,
			`meta mark 0x0 ip saddr . ip daddr @__set0 snat`,
			`oifname "eth*" ct state & 0x8 != 0x0 masquerade`,
			`ct mark == 0x0 ip daddr 10.0.0.0/9 notrack`,
			`iifname vmap @__map0`,
			`iifname vmap @__map0`,
			`meta mark set goto z`,
		},
		policy.IPv6: {
			`meta mark & 0x7 != 0x4 fib daddr type != local oifname != "lo" ip6 saddr fd00::/8 masquerade`,
			`oifname "eth*" ct state & 0x8 != 0x0 masquerade`,
			`... masquerade`,
			`iifname vmap @__map0`,
			`iifname vmap @__map0`,
			`meta mark set goto z`,
		},
	}
	for family, want := range want {
		var got []string
		err := space.Do(func() error {
			rules, err := base{name: "x", family: family}.readNative(unix.NFPROTO_INET, "y")
			for _, r := range rules {
				if !r.match.impossible() {
					got = append(got, r.text)
				}
			}
			return err
		})
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: error %v, rules (-want +got):\n%s", family, err, diff)
		}
	}
}

// TestLargeSet has a set of more elements than are read: whether the pods are in it is not known, and no alarm is raised.
func TestLargeSet(t *testing.T) {
	netnstest.Require(t, "nft")
	space := netnstest.NewSpace(t, "host")
	var elements []string
	for i := range maxElements + 1 {
		elements = append(elements, fmt.Sprintf("10.244.%d.%d", i>>8, i&0xff))
	}
	loadNative(t, space, "table ip x { set s { type ipv4_addr; elements = { "+strings.Join(elements, ", ")+" }\n}\n chain y "+hooked+`
		ip saddr @s masquerade
		ip saddr 10.244.0.5 masquerade
	} }`)
	if found := mustFind(t, space, query()); found != nil {
		t.Errorf("found %v", found)
	}
	loadNative(t, space, "delete element ip x s { 10.244.7.7 }")
	if found := mustFind(t, space, query()); len(found) != 1 {
		t.Errorf("one element fewer: found %v, want the rule of the set, which leaves nothing for the other", found)
	}
}
