package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// TestAddresses is A15 and A16: which addresses of a result are the pod's. NETNS stands for the pod's namespace.
func TestAddresses(t *testing.T) {
	const ips = `[{"address": "10.1.0.2/24", "interface": 0}, {"address": "10.1.0.3/24", "interface": 1}]`
	tests := []struct {
		name       string
		interfaces string
		ips        string
		want       []string
	}{
		{"A15 no interface named", `[]`, `[{"address": "10.1.0.2/24"}]`, []string{"10.1.0.2"}},
		{"A15 the pod's interface", `[{"name": "eth0", "sandbox": "NETNS"}]`, `[{"address": "10.1.0.2/24", "interface": 0}]`, []string{"10.1.0.2"}},
		{"A15 the pod's interface with an empty sandbox, as kindnet prints it", `[{"name": "eth0", "sandbox": ""}]`, `[{"address": "10.1.0.2/24", "interface": 0}]`, []string{"10.1.0.2"}},
		{"A15 another one inside the pod", `[{"name": "eth0", "sandbox": "NETNS"}, {"name": "net1", "sandbox": "NETNS"}]`, ips, []string{"10.1.0.2", "10.1.0.3"}},
		{"A15 the host's end is not the pod's", `[{"name": "eth0", "sandbox": "NETNS"}, {"name": "veth1"}]`, ips, []string{"10.1.0.2"}},
		{"A15 a bridge before it", `[{"name": "cni0"}, {"name": "eth0", "sandbox": "NETNS"}]`, ips, []string{"10.1.0.3"}},
		{"A15 index out of range", `[{"name": "eth0", "sandbox": "NETNS"}]`, ips, []string{"10.1.0.2", "10.1.0.3"}},
		{"A15 negative index", `[]`, `[{"address": "10.1.0.2/24", "interface": -1}]`, []string{"10.1.0.2"}},
		{"A15 interface null", `[null]`, `[{"address": "10.1.0.2/24", "interface": 0}]`, []string{"10.1.0.2"}},
		{"A16 host address, not the network", `[]`, `[{"address": "10.1.7.9/16"}]`, []string{"10.1.7.9"}},
		{"A16 each once", `[]`, `[{"address": "10.1.0.2/24"}, {"address": "10.1.0.2/32"}]`, []string{"10.1.0.2"}},
		{"A16 IPv4 in IPv6", `[]`, `[{"address": "::ffff:10.1.0.2/128"}, {"address": "10.1.0.2/24"}]`, []string{"10.1.0.2"}},
		{"A16 both families", `[]`, `[{"address": "fd00:1::2/64"}, {"address": "10.1.0.2/24"}]`, []string{"10.1.0.2", "fd00:1::2"}},
		{"A16 several of a family", `[]`, `[{"address": "fd00:1::2/64"}, {"address": "fd00:1::3/64"}]`, []string{"fd00:1::2", "fd00:1::3"}},
		{"no address at all", `[]`, `[]`, nil},
		{"the unspecified addresses", `[]`, `[{"address": "0.0.0.0/0"}, {"address": "::/0"}]`, nil},
		{"an address of the node", `[]`, `[{"address": "192.0.2.7/32"}]`, nil},
		{"an IPv6 address of the node", `[]`, `[{"address": "2001:db8::7/128"}, {"address": "10.1.0.2/24"}]`, []string{"10.1.0.2"}},
		{"the node's loopback", `[]`, `[{"address": "127.0.0.1/8"}, {"address": "::1/128"}]`, nil},
	}
	eachVariant(t, func(t *testing.T, v variant) {
		h := newHost(t, v)
		h.Run(t, "sh", "-ec", "ip link set lo up; ip addr add 192.0.2.7/32 dev lo; ip addr add 2001:db8::7/128 dev lo")
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				previous := fmt.Sprintf(`{"cniVersion": "1.1.0", "interfaces": %s, "ips": %s}`, tt.interfaces, tt.ips)
				previous = strings.ReplaceAll(previous, "NETNS", h.pod.Path)
				r := h.request("ADD", "a").set("prevResult", rawJSON(previous)).set("enableIPv6", true)
				got := h.must(t, r)
				if refused := strings.Contains(tt.name, "node") || len(tt.want) == 0; refused != strings.Contains(got.Stderr, "level=WARN") {
					t.Errorf("stderr %q, want a warning: %t", got.Stderr, refused)
				}
				if diff := cmp.Diff(tt.want, h.addresses(t)); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				h.must(t, r.as("CHECK"))
				h.must(t, r.as("DEL"))
				if left := h.addresses(t); left != nil {
					t.Errorf("left after DEL: %s", left)
				}
			})
		}
	})
}

// addresses are those with a rule, of both families.
func (h *host) addresses(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, f := range []policy.Family{policy.IPv4, policy.IPv6} {
		for _, pod := range h.observe(t, f).Pods {
			address, _, _ := strings.Cut(pod, " ")
			all = append(all, address)
		}
	}
	slices.Sort(all)
	return all
}

// TestDualStack is the whole state of a pod with both families, and of one with only the second.
func TestDualStack(t *testing.T) {
	for _, addresses := range [][]string{{"10.1.0.2", "fd00:1::2"}, {"fd00:1::2"}} {
		eachVariant(t, func(t *testing.T, v variant) {
			h := newHost(t, v)
			r := h.request("ADD", "a", addresses...).set("enableIPv6", true)
			h.must(t, r)
			h.wantTable(t, policy.IPv6, h.defaultTable(policy.IPv6, podLine("fd00:1::2", "a")))
			if len(addresses) == 2 {
				h.wantTable(t, policy.IPv4, h.defaultTable(policy.IPv4, podLine("10.1.0.2", "a")))
			} else {
				h.wantTable(t, policy.IPv4, table{})
			}
			h.must(t, r.as("CHECK"))
			h.must(t, r.as("DEL"))
			h.wantTable(t, policy.IPv6, h.defaultTable(policy.IPv6))
		})
	}
}

// TestOtherFamilyIsLeftAlone is A17: neither a program nor a table of IPv6 is touched for a pod without IPv6 address, nor
// while IPv6 is off.
func TestOtherFamilyIsLeftAlone(t *testing.T) {
	tests := []struct {
		name      string
		addresses []string
		ipv6      bool
	}{
		{"IPv4 pod, IPv6 on", []string{"10.1.0.2"}, true},
		{"dual stack pod, IPv6 off", []string{"10.1.0.2", "fd00:1::2"}, false},
		{"IPv6 pod, IPv6 off", []string{"fd00:1::2"}, false},
	}
	eachVariant(t, func(t *testing.T, v variant) {
		netnstest.Require(t, "nft", "unshare")
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				h := newHost(t, v)
				h.hide(t, func(name string) bool { return strings.HasPrefix(name, "ip6tables") })
				r := h.request("ADD", "a", tt.addresses...).set("enableIPv6", tt.ipv6)
				for _, verb := range []string{"ADD", "ADD", "CHECK", "DEL", "DEL"} {
					h.must(t, r.as(verb))
				}
				if out := h.Run(t, "nft", "list", "tables", "ip6"); out != "" {
					t.Errorf("tables of nf_tables: %s", out)
				}
				if out := h.Run(t, "cat", "/proc/net/ip6_tables_names"); out != "" {
					t.Errorf("tables of ip6_tables: %s", out)
				}
			})
		}
	})
}

func TestHiddenProgramsAreHidden(t *testing.T) {
	netnstest.Require(t, "unshare", "iptables-nft")
	h := newHost(t, testkit.Variants()[0])
	h.hide(t, func(name string) bool { return strings.Contains(name, "tables") })
	for program, want := range map[string]int{"iptables-nft": 127, "ls": 0} {
		script := program + " --version; exit $?"
		r := h.exec(t, netnstest.Cmd{Args: append(slices.Clone(h.through), "sh", "-c", script)})
		if r.Code != want {
			t.Errorf("%s: exit %d, want %d: %s", program, r.Code, want, r.Stderr)
		}
	}
	if _, err := filepath.EvalSymlinks("/usr/sbin/iptables-nft"); err != nil {
		t.Errorf("hidden from everybody: %v", err)
	}
}
