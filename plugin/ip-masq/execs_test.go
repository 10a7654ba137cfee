package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// TestExecs is A24 and A29: processes are what an ADD costs.
func TestExecs(t *testing.T) {
	v4, v6 := []string{"10.1.0.2"}, []string{"10.1.0.2", "fd00:1::2"}
	eachVariant(t, func(t *testing.T, v variant) {
		netnstest.Require(t, "strace")
		h := newHost(t, v)
		if v.IsIPTables() {
			// What a real node has by then.
			h.Run(t, "sh", "-ec", "iptables -t nat -N KUBE-SERVICES; iptables -t mangle -N KUBE-KUBELET-CANARY")
		}
		tests := []struct {
			name      string
			verb, who string
			addresses []string
			most      int
		}{
			{"A29 DEL before any ADD", "DEL", "x", nil, 1},
			{"A24 first ADD after boot", "ADD", "a", v4, 2},
			{"A24 steady ADD", "ADD", "b", []string{"10.1.0.3"}, 1},
			{"A24 repeated ADD", "ADD", "b", []string{"10.1.0.3"}, 1},
			{"A24 CHECK", "CHECK", "b", []string{"10.1.0.3"}, 1},
			{"A29 DEL of an unknown attachment", "DEL", "x", nil, 1},
			{"A24 DEL", "DEL", "b", nil, 1},
			{"A29 second DEL", "DEL", "b", nil, 1},
			{"A24 first pod of a second family", "ADD", "c", v6, 8},
			{"A24 steady ADD of two families", "ADD", "d", []string{"10.1.0.4", "fd00:1::4"}, 2},
			{"A24 repeated ADD of two families", "ADD", "d", []string{"10.1.0.4", "fd00:1::4"}, 2},
			{"A24 DEL of two families", "DEL", "d", nil, 2},
			{"A24 ADD of one family, both on", "ADD", "e", []string{"10.1.0.5"}, 1},
			{"A24 DEL of one family, both on", "DEL", "e", nil, 1},
			{"A29 DEL of an unknown attachment, both families on", "DEL", "x", nil, 1},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				r := h.request(tt.verb, tt.who, tt.addresses...).set("enableIPv6", strings.Contains(tt.name, "famil"))
				n, got := h.count(t, r)
				if got.want(t, 0); n > tt.most {
					t.Errorf("%d processes, want at most %d", n, tt.most)
				}
			})
		}
	})
}

// Requests as strace prints them, which may not know the protocol of the socket, and calls the field "type" in 5.10 (Debian 11).
var getRoute, getAddress = regexp.MustCompile(`\b(nlmsg_)?type=(0x1a|RTM_GETROUTE)\b`), regexp.MustCompile(`\b(nlmsg_)?type=(0x16|RTM_GETADDR)\b`)

// TestExecsOfAnnotations: an ADD that chooses an address, and one that opts out where the policy is about the node's traffic, start as few
// processes as any other; but with iptables-legacy the latter looks for rules whose record is lost, and then writes, and a DEL of the former
// looks for the rule of its address. The node's addresses are read for the former alone.
func TestExecsOfAnnotations(t *testing.T) {
	chosen := map[string]any{attachment.PodAnnotations: map[string]string{policy.SourceAddressesAnnotation: "192.0.2.0/24"}}
	eachVariant(t, func(t *testing.T, v variant) {
		netnstest.Require(t, "strace")
		h := newHost(t, v)
		h.Run(t, "sh", "-ec", "ip link set lo up; ip addr add 192.0.2.50/32 dev lo")
		h.sync(t, "nodeTraffic: true\npodAnnotations: [ip-masq-agent/source-addresses]\n")
		for _, tt := range []struct {
			name  string
			edit  func(*request)
			reads int
		}{
			{"usual", func(*request) {}, 0},
			{"chosen", key("runtimeConfig", chosen), 1},
			{"out", key("masquerade", false), 0},
		} {
			for _, verb := range []string{"ADD", "CHECK", "DEL"} {
				r := h.request(verb, tt.name, "10.1.0.2")
				tt.edit(r)
				n, got := h.count(t, r)
				most := 1
				switch {
				case v.Kind != backend.IPTablesLegacy:
				case tt.name == "out":
					most = 2
				case tt.name == "chosen" && verb == "DEL":
					most = 3
				}
				if got.want(t, 0); n > most {
					t.Errorf("%s of %s: %d processes, want at most %d", verb, tt.name, n, most)
				}
				if verb != "DEL" {
					continue
				}
				trace := filepath.Join(t.TempDir(), "trace")
				h.through = []string{"strace", "-f", "-e", "trace=sendto", "-o", trace}
				h.must(t, r.as("ADD"))
				h.through = nil
				text, err := os.ReadFile(trace)
				if err != nil || !getRoute.Match(text) {
					t.Fatalf("the trace has no request at all: %v\n%s", err, text)
				}
				if reads := len(getAddress.FindAll(text, -1)); reads != tt.reads {
					t.Errorf("ADD of %s reads the node's addresses %d times, want %d\n%s", tt.name, reads, tt.reads, text)
				}
				h.must(t, r)
			}
		}
	})
}
