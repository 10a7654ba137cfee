package main

import (
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
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
			{"A24 first ADD after boot", "ADD", "a", v4, 3},
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
