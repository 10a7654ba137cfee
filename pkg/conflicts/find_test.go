package conflicts

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// eachVariant runs a test once per variant of iptables.
func eachVariant(t *testing.T, test func(t *testing.T, s *scene)) {
	t.Helper()
	testkit.Each(t, testkit.IPTablesVariants(), func(t *testing.T, v testkit.Variant) { test(t, newScene(t, v.Kind)) })
}

var iptablesTests = []struct {
	name    string
	rules   string
	want    []string // after "KIND table nat chain "
	spoiled string   // which host sees the other address: corp, internet or, empty, none
}{
	{name: "none", rules: "-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE"},
	{name: "local", rules: "-A POSTROUTING -m addrtype --dst-type LOCAL -j MASQUERADE"},
	{name: "elsewhere", rules: "-A POSTROUTING -d 198.51.100.0/24 -j MASQUERADE"},
	{name: "plain", rules: "-A POSTROUTING -o nosuch0 -j ACCEPT\n-A POSTROUTING -p udp -j MASQUERADE", want: []string{"unknown: POSTROUTING rule 2"}, spoiled: "corp"},
	{name: "kube-proxy", rules: kubeProxy},
	{name: "hostports", rules: "-A POSTROUTING -j CNI-HOSTPORT-MASQ\n-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE"},
	{
		name:  "kubelet",
		rules: `-A POSTROUTING ! -d 10.244.0.0/16 -m comment --comment "kubenet: SNAT for outbound traffic from cluster" -m addrtype ! --dst-type LOCAL -j MASQUERADE`,
		want:  []string{"kubelet: POSTROUTING rule 1"}, spoiled: "corp",
	},
	{name: "flannel", rules: flannel, want: []string{"flannel: FLANNEL-POSTRTG rule 5"}, spoiled: "corp"},
	{name: "Calico", rules: calico, want: []string{"Calico: cali-nat-outgoing rule 1"}, spoiled: "corp"},
	{name: "Cilium", rules: cilium, want: []string{"Cilium: CILIUM_POST_nat rule 1"}, spoiled: "corp"},
	{name: "AWS", rules: strings.ReplaceAll(aws, "192.168.3.7", "10.99.0.1"), want: []string{"AWS VPC CNI: AWS-SNAT-CHAIN-0 rule 2"}, spoiled: "corp"},
	{name: "GKE", rules: gke("172.16.0.0/12"), want: []string{"another agent: IP-MASQ rule 2"}, spoiled: "corp"},
	{name: "GKE with the same policy", rules: gke("169.254.0.0/16", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")},
	{name: "exempt", rules: "-A POSTROUTING -s 10.244.0.0/16 -d 192.0.2.0/24 -j ACCEPT", want: []string{"unknown: POSTROUTING rule 1"}, spoiled: "internet"},
	{name: "exempt from nothing", rules: "-A POSTROUTING -s 10.244.0.0/16 -d 10.96.0.0/12 -j RETURN"},
}

// TestIPTables holds every answer against a packet: what is named defeats the policy, and what is not does not.
func TestIPTables(t *testing.T) {
	eachVariant(t, func(t *testing.T, s *scene) {
		s.ipset(t, "cali40masq-ipam-pools", "10.244.0.0/16")
		s.ipset(t, "cali40all-ipam-pools", "10.244.0.0/16")
		for _, test := range iptablesTests {
			t.Run(test.name, func(t *testing.T) {
				load(t, s.Space, script(test.rules), string(s.kind)+"-restore", "--noflush")
				s.ours(t)
				var want []string
				for _, w := range test.want {
					want = append(want, strings.Replace(w, ": ", ": "+string(s.kind)+" table nat chain ", 1))
				}
				if diff := cmp.Diff(want, brief(mustFind(t, s.Space, s.query()))); diff != "" {
					t.Errorf("conflicts (-want +got):\n%s", diff)
				}
				s.keeps(t, s.Corp.IPv4, test.spoiled != "corp")
				s.keeps(t, s.Internet.IPv4, test.spoiled == "internet")
			})
		}
	})
}

func TestIPv6(t *testing.T) {
	eachVariant(t, func(t *testing.T, s *scene) {
		s.ours(t)
		s.keeps(t, s.Corp.IPv6, true)
		load(t, s.Space, "*nat\n-A POSTROUTING -s fd00:244::/64 -j MASQUERADE\nCOMMIT\n", strings.Replace(string(s.kind), "ip", "ip6", 1)+"-restore", "--noflush")
		got := mustFind(t, s.Space, s.query())
		want := []Conflict{{
			Owner: "unknown", Where: strings.Replace(string(s.kind), "ip", "ip6", 1) + " table nat chain POSTROUTING rule 2",
			Rule: "-s fd00:244::/64 -j MASQUERADE", Fix: unknownFix,
		}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("conflicts (-want +got):\n%s", diff)
		}
		s.keeps(t, s.Corp.IPv6, false)
		q := s.query()
		q.Policy.Settings.IPv6 = false
		if got := mustFind(t, s.Space, q); got != nil {
			t.Errorf("IPv6 is off, and this was found: %v", got)
		}
	})
}

// TestOtherVariant has our rules in one variant and somebody else's in the other: both are asked by every packet.
func TestOtherVariant(t *testing.T) {
	eachVariant(t, func(t *testing.T, s *scene) {
		s.ours(t)
		other := map[backend.Kind]backend.Kind{backend.IPTablesNFT: backend.IPTablesLegacy, backend.IPTablesLegacy: backend.IPTablesNFT}[s.kind]
		s.Run(t, string(other), "-t", "nat", "-A", "POSTROUTING", "-j", "MASQUERADE")
		want := []string{"unknown: " + string(other) + " table nat chain POSTROUTING rule 1"}
		if diff := cmp.Diff(want, brief(mustFind(t, s.Space, s.query()))); diff != "" {
			t.Errorf("conflicts (-want +got):\n%s", diff)
		}
		s.keeps(t, s.Corp.IPv4, false)
	})
}

// TestLookingMakesNothing looks at a namespace in which nobody uses any table.
func TestLookingMakesNothing(t *testing.T) {
	netnstest.Require(t, "iptables-nft", "nft")
	space := netnstest.NewSpace(t, "host")
	if got := mustFind(t, space, query()); got != nil {
		t.Errorf("found %v", got)
	}
	if got := space.Run(t, "nft", "list", "ruleset"); got != "" {
		t.Errorf("tables of nf_tables that were made:\n%s", got)
	}
	if got := space.Run(t, "cat", "/proc/net/ip_tables_names"); strings.Contains(got, "nat") {
		t.Errorf("tables of ip_tables that were made: %s", got)
	}
}

// TestNoPrograms has no iptables: its nft variant is read from the kernel, and its legacy variant cannot be looked at.
func TestNoPrograms(t *testing.T) {
	eachVariant(t, func(t *testing.T, s *scene) {
		s.Run(t, string(s.kind), "-t", "nat", "-A", "POSTROUTING", "!", "-d", "10.244.0.0/16", "-m", "comment", "--comment", "kubenet: SNAT", "-m", "addrtype", "!", "--dst-type", "LOCAL", "-j", "MASQUERADE")
		q := s.query()
		q.Host = "/nonexistent"
		got, err := in(t, s.Space, q)
		if s.kind == backend.IPTablesLegacy {
			if err == nil || got != nil {
				t.Errorf("found %v, error %v, want nothing and an error", got, err)
			}
			return
		}
		if err != nil {
			t.Errorf("error %v", err)
		}
		if diff := cmp.Diff([]string{"kubelet: nftables table ip nat chain POSTROUTING"}, brief(got)); diff != "" {
			t.Errorf("conflicts (-want +got):\n%s", diff)
		}
	})
}

// TestNoSuchChain reads a chain that is gone by the time it is read, or that is a target without options.
func TestNoSuchChain(t *testing.T) {
	eachVariant(t, func(t *testing.T, s *scene) {
		s.Run(t, string(s.kind), "-t", "nat", "-A", "POSTROUTING", "-j", "ACCEPT")
		err := s.Do(func() error {
			rules, err := xtable("", s.kind, policy.IPv4, "nat", "POSTROUTING", afterRouting).read(t.Context(), "NOSUCH")
			if len(rules) > 0 {
				t.Errorf("rules %v", rules)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestUnmappedSources(t *testing.T) {
	q := query()
	q.Sources = []netip.Addr{netip.MustParseAddr("::ffff:10.244.0.5")}
	if got := newTraffic(q, policy.IPv4).pods; len(got) != 1 {
		t.Errorf("pods %v", got)
	}
}
