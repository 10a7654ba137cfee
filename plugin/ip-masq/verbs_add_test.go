package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/node"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// TestAddKeepsWhatStands is A19: whatever stands in the shared chain stays, and so does everything of others.
func TestAddKeepsWhatStands(t *testing.T) {
	const odd = "-d 203.0.113.0/24 -j RETURN"
	tests := []struct{ name, before string }{
		{"A19 the chain of another agent", ":IP-MASQ-AGENT - [0:0]\n-A IP-MASQ-AGENT " + odd},
		{"A19 the chain and rules of others", ":IP-MASQ-AGENT - [0:0]\n:OTHER - [0:0]\n-A IP-MASQ-AGENT " + odd + "\n-A POSTROUTING -j OTHER\n-A OTHER -j IP-MASQ-AGENT"},
		{"A19 both chains, no root rule", ":IP-MASQ-AGENT - [0:0]\n:IP-MASQ-AGENT-PODS - [0:0]\n-A IP-MASQ-AGENT " + odd},
	}
	eachIPTables(t, func(t *testing.T, v variant) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				h := newHost(t, v)
				h.restore(t, "*nat\n"+tt.before+"\nCOMMIT\n")
				for _, container := range []string{"a", "a", "b"} {
					h.add(t, container, "10.1.0."+string(container[0]-'a'+'2'))
				}
				want := table{Roots: 1, Chain: []string{odd}, Pods: []string{podLine("10.1.0.2", "a"), podLine("10.1.0.3", "b")}}
				h.wantTable(t, policy.IPv4, want)
				if got := strings.Join(h.save(t, policy.IPv4), "\n"); strings.Contains(tt.before, "OTHER") && strings.Count(got, "OTHER") != 3 {
					t.Errorf("rules of others changed:\n%s", got)
				}
			})
		}
	})
}

// TestAddAgain is A20: one owner has the addresses of its last ADD, and no others.
func TestAddAgain(t *testing.T) {
	tests := []struct {
		name         string
		first, again []string
	}{
		{"A20 the same", []string{"10.1.0.2"}, []string{"10.1.0.2"}},
		{"A20 another", []string{"10.1.0.2"}, []string{"10.1.0.3"}},
		{"A20 one more", []string{"10.1.0.2"}, []string{"10.1.0.2", "10.1.0.3"}},
		{"A20 one less", []string{"10.1.0.2", "10.1.0.3"}, []string{"10.1.0.3"}},
		{"A20 none any more", []string{"10.1.0.2"}, nil},
		{"A20 a second family", []string{"10.1.0.2"}, []string{"10.1.0.2", "fd00:1::2"}},
		{"A20 the second family gone", []string{"10.1.0.2", "fd00:1::2"}, []string{"10.1.0.2"}},
		{"A20 the other family", []string{"10.1.0.2"}, []string{"fd00:1::2"}},
	}
	eachVariant(t, func(t *testing.T, v variant) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				h := newHost(t, v)
				h.must(t, h.request("ADD", "a", tt.first...).set("enableIPv6", true))
				for range 2 {
					h.must(t, h.request("ADD", "a").set("prevResult", h.result(tt.again...)).set("enableIPv6", true))
					if got, want := strings.Join(h.addresses(t), " "), strings.Join(tt.again, " "); got != want {
						t.Errorf("rules for %q, want %q", got, want)
					}
				}
			})
		}
	})
}

// TestAddMends is A23: what of the node's state is missing, the next ADD puts back, the former pods included.
func TestAddMends(t *testing.T) {
	tests := []struct {
		name   string
		damage string
	}{
		{"A23 shared chain emptied", "iptables -t nat -F IP-MASQ-AGENT"},
		{"A23 root rule gone", "iptables -t nat -F POSTROUTING"},
		{"A23 pods' chain emptied", "iptables -t nat -F IP-MASQ-AGENT-PODS && iptables -t nat -F IP-MASQ-AGENT"},
		{"A23 root rule and pods' chain gone", "iptables -t nat -F POSTROUTING && iptables -t nat -F IP-MASQ-AGENT-PODS && iptables -t nat -X IP-MASQ-AGENT-PODS"},
		{"A23 everything gone", "iptables -t nat -F && iptables -t nat -X"},
	}
	eachIPTables(t, func(t *testing.T, v variant) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				h := newHost(t, v)
				h.add(t, "a", "10.1.0.2")
				h.Run(t, "sh", "-ec", tt.damage)
				h.add(t, "b", "10.1.0.3")
				h.wantPods(t, podLine("10.1.0.2", "a"), podLine("10.1.0.3", "b"))
			})
		}
	})
}

// TestAddRefillsInOneTransaction: at no time may a pod's rule lead to a chain that masquerades nothing.
func TestAddRefillsInOneTransaction(t *testing.T) {
	eachIPTables(t, func(t *testing.T, v variant) {
		for _, damage := range []string{"", "-F IP-MASQ-AGENT"} {
			h := newHost(t, v)
			log := filepath.Join(t.TempDir(), "log")
			h.wrap(t, `echo "# run" >>`+log+`; tee -a `+log+` | "$REAL" "$@"`)
			h.add(t, "a", "10.1.0.2")
			if damage != "" {
				h.nat(t, strings.Fields(damage)...)
				h.add(t, "a", "10.1.0.2")
			}
			runs := strings.Split(string(readFile(t, log)), "# run\n")
			last := runs[len(runs)-1]
			if fills, pods := strings.Count(last, "-A IP-MASQ-AGENT -"), strings.Count(last, "-A IP-MASQ-AGENT-PODS"); fills != 5 || (damage == "" && pods != 1) {
				t.Errorf("the last transaction is\n%s", last)
			}
			h.wantPods(t, podLine("10.1.0.2", "a"))
		}
	})
}

// TestAddAfterBoot is A23 too: the first ADD puts the agent's last policy in place, long before the agent is up. Its settings
// overrule the plugin's own keys.
func TestAddAfterBoot(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant) {
		before := newHost(t, v)
		before.sync(t, "nonMasqueradeCIDRs: [10.0.0.0/8, fd00:9::/64]\nmasqLinkLocal: true\n", "--enable-ipv6")
		h := newHost(t, v)
		h.dataDir = before.dataDir
		h.must(t, h.request("ADD", "a", "10.1.0.2", "fd00:1::2").set("enableIPv6", false).set("masqChain", "NOT-THIS"))
		h.wantTable(t, policy.IPv4, table{Roots: 1, Chain: h.chainOf("10.0.0.0/8"), Pods: []string{podLine("10.1.0.2", "a")}})
		h.wantTable(t, policy.IPv6, table{Roots: 1, Chain: h.chainOf("fe80::/10", "fd00:9::/64"), Pods: []string{podLine("fd00:1::2", "a")}})
		h.del(t, "a")
		h.wantTable(t, policy.IPv6, table{Roots: 1, Chain: h.chainOf("fe80::/10", "fd00:9::/64")})
	})
}

// TestPersistedPolicyIsBroken: a file that cannot be used must not keep pods from starting.
func TestPersistedPolicyIsBroken(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant) {
		for _, text := range []string{"", "{", "null", `{"settings": {"chain": "-F"}}`, `{"nonMasqueradeCIDRs": ["10.0.0.1/8"]}`} {
			h := newHost(t, v)
			writeFile(t, filepath.Join(h.dataDir, "policy.json"), text)
			h.add(t, "a", "10.1.0.2")
			h.wantPods(t, podLine("10.1.0.2", "a"))
			h.del(t, "a")
			h.wantPods(t)
		}
	})
}

// TestChainKey is the key masqChain.
func TestChainKey(t *testing.T) {
	eachIPTables(t, func(t *testing.T, v variant) {
		h := newHost(t, v)
		r := h.request("ADD", "a", "10.1.0.2").set("masqChain", "MY_masq.1")
		for _, verb := range []string{"ADD", "ADD", "CHECK", "STATUS"} {
			h.must(t, r.as(verb))
		}
		h.nat(t, "-C", "POSTROUTING", "-m", "comment", "--comment", "ip-masq-agent: pods", "-j", "MY_masq.1-PODS")
		if got := h.Run(t, h.iptables(policy.IPv4), "-t", "nat", "-S", "MY_masq.1-PODS"); !strings.Contains(got, "-g MY_masq.1\n") {
			t.Errorf("the pods' chain is\n%s", got)
		}
		h.must(t, r.as("DEL"))
		if got := h.Run(t, h.iptables(policy.IPv4), "-t", "nat", "-S", "MY_masq.1-PODS"); got != "-N MY_masq.1-PODS\n" {
			t.Errorf("the pods' chain is\n%s", got)
		}
	})
}

// TestOptOut keeps a pod's own address: by the network's key, or by the pod's annotation.
func TestOptOut(t *testing.T) {
	tests := []struct {
		name string
		edit func(*request)
	}{
		{"key", key("masquerade", false)},
		{"annotation", key("runtimeConfig", annotated("false"))},
		{"annotation, capitalised", key("runtimeConfig", annotated("False"))},
		{"annotation no", key("runtimeConfig", annotated("no"))},
		{"annotation against the key", both(key("masquerade", true), key("runtimeConfig", annotated("false")))},
	}
	eachVariant(t, func(t *testing.T, v variant) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				h := newHost(t, v)
				h.add(t, "b", "10.1.0.9")
				r := h.request("ADD", "a", "10.1.0.2")
				out := h.request("ADD", "a", "10.1.0.2")
				tt.edit(out)
				for _, step := range []*request{out, out.as("CHECK"), r, out, out.as("CHECK"), out.as("DEL")} {
					h.must(t, step)
				}
				h.wantPods(t, podLine("10.1.0.9", "b"))
				h.must(t, r)
				h.wantPods(t, podLine("10.1.0.9", "b"), podLine("10.1.0.2", "a"))
			})
		}
	})
}

// TestPodAnnotations: the agent's policy says which annotations count. A refused one has no effect, is in the record and on stderr,
// and keeps no pod from starting, whatever its value. What an ADD decided holds until the next, whatever the policy says by then.
func TestPodAnnotations(t *testing.T) {
	const masquerade, sources = policy.MasqueradeAnnotation, policy.SourceAddressesAnnotation
	list := policy.AllowedAnnotations([]string{masquerade, sources})
	tests := []struct {
		name    string
		allowed policy.PodAnnotations
		network any
		pod     map[string]string
		code    uint
		ruled   bool
		refused []string
	}{
		{"allowed", policy.AllowAnnotations, nil, map[string]string{masquerade: "false"}, 0, false, nil},
		{"the pod overrides its network", "", false, map[string]string{masquerade: "true"}, 0, true, nil},
		{"denied", policy.DenyAnnotations, nil, map[string]string{masquerade: "false"}, 0, true, []string{masquerade}},
		{"denied, the network is off", policy.DenyAnnotations, false, map[string]string{masquerade: "true"}, 0, false, []string{masquerade}},
		{"denied, no boolean", policy.DenyAnnotations, nil, map[string]string{masquerade: "maybe"}, 0, true, []string{masquerade}},
		{"no boolean", policy.AllowAnnotations, nil, map[string]string{masquerade: "maybe"}, 7, false, nil},
		{"addresses are not in the default", "", nil, map[string]string{sources: "192.0.2.0/28"}, 0, true, []string{sources}},
		{"no prefix", list, nil, map[string]string{sources: "192.0.2.1/28"}, 7, false, nil},
		{"both refused", policy.DenyAnnotations, nil, map[string]string{sources: "x", masquerade: "no", "another/one": "x"}, 0, true, []string{masquerade, sources}},
	}
	eachVariant(t, func(t *testing.T, v variant) {
		h := newHost(t, v)
		persist := func(allowed policy.PodAnnotations) {
			settings := policy.DefaultSettings()
			settings.PodAnnotations = allowed
			if err := node.New(node.Options{DataDir: h.dataDir}).SavePolicy(policy.Default(settings)); err != nil {
				t.Fatal(err)
			}
		}
		for i, tt := range tests {
			persist(tt.allowed)
			address := fmt.Sprint("10.1.0.", i+2)
			r := h.request("ADD", fmt.Sprint("p", i), address).set("runtimeConfig", map[string]any{attachment.PodAnnotations: tt.pod})
			if tt.network != nil {
				r.set("masquerade", tt.network)
			}
			for _, when := range []string{"first", "again"} {
				got := h.do(t, r).want(t, tt.code)
				for _, name := range tt.refused {
					if !strings.Contains(got.Stderr, "annotation="+name) {
						t.Errorf("%s, %s: %s is not named on stderr:\n%s", tt.name, when, name, got.Stderr)
					}
				}
				if tt.code != 0 && !strings.Contains(got.err.Msg, "annotation ip-masq-agent/") {
					t.Errorf("%s: %s", tt.name, got.err.Msg)
				}
				if ruled := slices.Contains(h.observe(t, policy.IPv4).Pods, podLine(address, fmt.Sprint("p", i))); ruled != tt.ruled {
					t.Errorf("%s, %s: has a rule: %t", tt.name, when, ruled)
				}
			}
			records := attachment.Store{Dir: node.RecordsDir(h.stateDir)}
			if !tt.ruled {
				records.Dir = filepath.Join(h.stateDir, "opted-out")
			}
			owner := attachment.Owner{Network: network, ContainerID: fmt.Sprint("p", i), IfName: ifName}
			if record, err := records.Get(owner.ID()); tt.code == 0 && (err != nil || !slices.Equal(record.Refused, tt.refused) || len(record.SourceAddresses) > 0) {
				t.Errorf("%s: recorded as %+v, %v", tt.name, record, err)
			}
			if tt.code != 0 {
				continue
			}
			for _, allowed := range []policy.PodAnnotations{policy.AllowAnnotations, policy.DenyAnnotations} {
				persist(allowed)
				h.must(t, r.as("CHECK"))
			}
			h.must(t, r.as("DEL"))
		}
		h.wantPods(t)
	})
}

// TestBackendKey: the first ADD of this boot decides. An entry that asks for another backend is refused with both names, and
// harms nobody: the first network's pods pass CHECK, and its own DEL succeeds.
func TestBackendKey(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant) {
		h := newHost(t, v)
		own, other := "nftables", "iptables"
		if v.IsIPTables() {
			own, other = other, own
		}
		first := h.request("ADD", "a", "10.1.0.2").set("backend", own)
		second := h.request("ADD", "b", "10.1.0.3").set("name", "second").set("backend", other)
		h.must(t, first)
		got := h.do(t, second).want(t, 101)
		if got.err != nil && (!strings.Contains(got.err.Msg, `"`+other+`"`) || !strings.Contains(got.err.Msg, string(v.Kind))) {
			t.Errorf("%q does not name both", got.err.Msg)
		}
		h.do(t, second.as("CHECK")).want(t, 101)
		status := h.status().set("name", "second").set("backend", other)
		h.do(t, status).want(t, 51)
		h.must(t, first.as("CHECK"))
		h.must(t, second.as("DEL"))
		h.must(t, h.request("ADD", "c", "10.1.0.4").set("backend", "auto"))
		h.wantPods(t, podLine("10.1.0.2", "a"), podLine("10.1.0.4", "c"))
	})
}

// TestOneBackendForAllWriters: entries that ask for different backends, all at once. Some are refused; none switches the node.
func TestOneBackendForAllWriters(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant) {
		h := newHost(t, v)
		one(t, h)
		var requests []*request
		for i := range 12 {
			r := h.request("ADD", fmt.Sprint("p", i), fmt.Sprint("10.1.1.", i+1))
			requests = append(requests, r.set("backend", []string{"iptables", "nftables"}[i%2]))
		}
		for i, got := range h.all(t, requests...) {
			mine := (requests[i].conf["backend"] == "nftables") == (v.Kind == backend.NFTables)
			if want := map[bool]uint{true: 0, false: 101}[mine]; got.code() != want {
				t.Errorf("%v: code %d, want %d", requests[i].conf["backend"], got.code(), want)
			}
		}
		if pods := h.observe(t, policy.IPv4).Pods; len(pods) != 7 {
			t.Errorf("%d pods, want 7: %q", len(pods), pods)
		}
		h.must(t, h.request("CHECK", "a", "10.1.0.2"))
	})
}
