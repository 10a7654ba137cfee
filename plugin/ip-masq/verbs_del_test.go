package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// TestDelIsLenient is A25: whatever a runtime cannot say any more, the pod's rules go and the runtime can go on.
func TestDelIsLenient(t *testing.T) {
	tests := []struct {
		name string
		edit func(*request)
	}{
		{"A25 no namespace", env("CNI_NETNS", "")},
		{"A25 namespace gone", env("CNI_NETNS", "/no/such/namespace")},
		{"A25 namespace path is a plain file", env("CNI_NETNS", "/etc/passwd")},
		{"A25 no prevResult", key("prevResult", nil)},
		{"A25 prevResult null", key("prevResult", rawJSON("null"))},
		{"A25 prevResult of another type", key("prevResult", []int{1})},
		{"A25 prevResult of an unknown version", key("prevResult", rawJSON(`{"cniVersion": "7.0.0", "ips": 1}`))},
		{"A25 prevResult of another version", key("prevResult", rawJSON(result040))},
		{"A25 prevResult with another address", key("prevResult", rawJSON(result110))},
		{"A25 keys that ADD would refuse", both(key("masqChain", "A B"), key("backend", "pf"))},
		{"opt-out since the ADD", key("masquerade", false)},
		{"IPv6 switched on since the ADD", key("enableIPv6", true)},
	}
	eachVariant(t, func(t *testing.T, v variant) {
		h := newHost(t, v)
		h.add(t, "b", "10.1.0.9")
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				h.add(t, "a", "10.1.0.2")
				r := h.request("DEL", "a", "10.1.0.2")
				tt.edit(r)
				for range 2 {
					h.must(t, r)
					h.wantPods(t, podLine("10.1.0.9", "b"))
				}
			})
		}
	})
}

// TestDelWithoutTheRest is the other half of A25, and A27: parts of our state are gone. DEL puts nothing back.
func TestDelWithoutTheRest(t *testing.T) {
	tests := []struct {
		name   string
		damage string
		lines  int // of "IP-MASQ-AGENT" that are left
	}{
		{"A25 rule gone", "iptables -t nat -F IP-MASQ-AGENT-PODS", 9},
		{"A25 root rule gone", "iptables -t nat -F POSTROUTING", 7},
		{"A27 shared chain empty", "iptables -t nat -F IP-MASQ-AGENT", 3},
		{"A25 pods' chain gone", "iptables -t nat -F POSTROUTING; iptables -t nat -F IP-MASQ-AGENT-PODS; iptables -t nat -X IP-MASQ-AGENT-PODS", 6},
		{"A25 chains gone", "iptables -t nat -F; iptables -t nat -X", 0},
	}
	eachIPTables(t, func(t *testing.T, v variant) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				h := newHost(t, v)
				h.add(t, "a", "10.1.0.2")
				h.Run(t, "sh", "-ec", tt.damage)
				for range 2 {
					h.del(t, "a")
				}
				left := 0
				for _, line := range h.save(t, policy.IPv4) {
					if strings.Contains(line, chain) {
						left++
					}
				}
				if left > tt.lines || h.observe(t, policy.IPv4).Pods != nil || h.records(t) != nil {
					t.Errorf("%d lines left, want %d:\n%s", left, tt.lines, strings.Join(h.save(t, policy.IPv4), "\n"))
				}
			})
		}
	})
}

func TestDelWithoutTheTable(t *testing.T) {
	netnstest.Require(t, "nft")
	h := newHost(t, testkit.Variants()[0])
	h.add(t, "a", "10.1.0.2")
	h.Run(t, "nft", "delete", "table", "ip", "nat")
	h.del(t, "a")
	if out := h.Run(t, "nft", "list", "tables"); strings.Contains(out, "nat") || h.records(t) != nil {
		t.Errorf("DEL put back %q", out)
	}
}

// TestDelWithoutBackend: iptables was uninstalled under a pod. The pod must be able to go. On nf_tables its rules go without any
// program; what DEL could not remove, it names, and the next resync on a machine with iptables removes it.
func TestDelWithoutBackend(t *testing.T) {
	eachIPTables(t, func(t *testing.T, v variant) {
		h := newHost(t, v)
		pod := netnstest.NewSpace(t, "gone")
		h.must(t, h.request("ADD", "a", "10.1.0.2").setenv("CNI_NETNS", pod.Path))
		pod.Remove()
		bare := *h
		bare.hide(t, isIPTables)
		got := bare.must(t, bare.request("DEL", "a").setenv("CNI_NETNS", ""))
		if stays := v.Kind == backend.IPTablesLegacy; strings.Contains(got.Stderr, "iptables") != stays {
			t.Errorf("rules stay is %t, and DEL says %q", stays, got.Stderr)
		}
		if v.Kind == backend.IPTablesNFT {
			h.wantPods(t)
		}
		h.SetPATH(netnstest.IPTables(t, v.Name))
		h.sync(t, "")
		h.wantPods(t)
	})
}

func isIPTables(name string) bool { return strings.Contains(name, "tables") }

// TestDelKnowsOwners is A26: an address that was given away stays with its new owner.
func TestDelKnowsOwners(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant) {
		h := newHost(t, v)
		a := h.request("ADD", "a", "10.1.0.2")
		other := []*request{
			h.request("ADD", "b", "10.1.0.2"),
			h.request("ADD", "a", "10.1.0.2").setenv("CNI_IFNAME", "eth1"),
			h.request("ADD", "a", "10.1.0.2").set("name", "other"),
		}
		for i, b := range other {
			h.must(t, a)
			h.must(t, b)
			h.must(t, a.as("DEL"))
			if got := h.observe(t, policy.IPv4).Pods; len(got) != 1 || strings.Contains(got[0], idOf("a")) {
				t.Errorf("owner %d: rules %q", i, got)
			}
			h.must(t, b.as("CHECK"))
			h.must(t, b.as("DEL"))
			h.wantPods(t)
		}
	})
}

// TestDelWithoutRecord is A36 for one attachment: the rule alone names its owner.
func TestDelWithoutRecord(t *testing.T) {
	tests := []struct {
		name string
		lose func(h *host) string
	}{
		{"the record", func(h *host) string { return filepath.Join(h.recordsDir(), idOf("a")+".json") }},
		{"all records", (*host).recordsDir},
		{"the state directory", func(h *host) string { return h.stateDir }},
	}
	eachVariant(t, func(t *testing.T, v variant) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				h := newHost(t, v)
				for container, addresses := range map[string][]string{"a": {"10.1.0.2", "fd00:1::2"}, "b": {"10.1.0.3"}} {
					h.must(t, h.request("ADD", container, addresses...).set("enableIPv6", true))
				}
				if err := os.RemoveAll(tt.lose(h)); err != nil {
					t.Fatal(err)
				}
				h.must(t, h.request("DEL", "a").set("enableIPv6", true))
				if got := h.addresses(t); !slices.Equal(got, []string{"10.1.0.3"}) {
					t.Errorf("rules of %q, want those of the other pod", got)
				}
			})
		}
	})
}

// TestDelOnAFreshHost is A30: a pod from before the plugin. Nothing comes into being.
func TestDelOnAFreshHost(t *testing.T) {
	netnstest.Require(t, "nft")
	eachVariant(t, func(t *testing.T, v variant) {
		h := newHost(t, v)
		h.del(t, "a")
		for _, args := range [][]string{{"nft", "list", "tables"}, {"cat", "/proc/net/ip_tables_names"}, {"cat", "/proc/net/ip6_tables_names"}} {
			if out := h.Run(t, args...); out != "" {
				t.Errorf("%s: %s", args, out)
			}
		}
		if records := h.records(t); records != nil {
			t.Errorf("records %s", records)
		}
	})
}
