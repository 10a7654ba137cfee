package main

import (
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// TestCheck is A31 and A32: CHECK names what is missing, puts nothing right, and does not mind its neighbours.
func TestCheck(t *testing.T) {
	tests := []struct {
		name   string
		damage string
		code   uint
		says   string
	}{
		{"A32 right after ADD", "true", 0, ""},
		{"A32 rules of other software before and after the root rule", "iptables -t nat -I POSTROUTING -j RETURN -s 1.2.3.4; iptables -t nat -A POSTROUTING -j RETURN -s 1.2.3.4", 0, ""},
		{"A32 a rule of others in the shared chain", "iptables -t nat -I IP-MASQ-AGENT -d 1.2.3.4 -j RETURN", 0, ""},
		{"A32 other software leads into the shared chain", "iptables -t nat -A POSTROUTING -s 1.2.3.4 -j IP-MASQ-AGENT", 0, ""},
		{"A31 root rule gone", "iptables -t nat -F POSTROUTING", 102, "POSTROUTING"},
		{"A31 pod's rule gone", "iptables -t nat -F IP-MASQ-AGENT-PODS", 102, "10.1.0.2"},
		{"A31 one of two rules gone", "iptables -t nat -D IP-MASQ-AGENT-PODS 1", 102, "10.1.0.2"},
		{"A31 shared chain empty", "iptables -t nat -F IP-MASQ-AGENT", 103, "IP-MASQ-AGENT is empty"},
		{"A31 everything gone", "iptables -t nat -F; iptables -t nat -X", 102, "POSTROUTING"},
	}
	eachIPTables(t, func(t *testing.T, v variant) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				h := newHost(t, v)
				r := h.request("ADD", "a", "10.1.0.2", "10.1.0.3")
				h.must(t, r)
				h.Run(t, "sh", "-ec", tt.damage)
				h.unchanged(t, func() {
					got := h.do(t, r.as("CHECK")).want(t, tt.code)
					if got.err != nil && !strings.Contains(got.err.Msg, tt.says) {
						t.Errorf("%q does not name %q", got.err.Msg, tt.says)
					}
				})
			})
		}
	})
}

// TestCheckSecondFamily: what is missing in IPv6 is missing.
func TestCheckSecondFamily(t *testing.T) {
	eachIPTables(t, func(t *testing.T, v variant) {
		h := newHost(t, v)
		r := h.request("ADD", "a", "10.1.0.2", "fd00:1::2").set("enableIPv6", true)
		h.must(t, r)
		h.Run(t, h.iptables(policy.IPv6), "-t", "nat", "-F", podsChain)
		if got := h.do(t, r.as("CHECK")).want(t, 102); got.err != nil && !strings.Contains(got.err.Msg, "fd00:1::2") {
			t.Errorf("%q does not name the address", got.err.Msg)
		}
	})
}

// TestCheckOfAnother: the rules of one owner do not speak for another. A set has one element per address, whoever its owner is,
// and the address is all that a packet asks about.
func TestCheckOfAnother(t *testing.T) {
	eachIPTables(t, func(t *testing.T, v variant) {
		h := newHost(t, v)
		h.unchanged(t, func() { h.do(t, h.request("CHECK", "a", "10.1.0.2")).want(t, 102) })
		h.add(t, "a", "10.1.0.2")
		h.unchanged(t, func() {
			h.do(t, h.request("CHECK", "b", "10.1.0.2")).want(t, 102)
			h.do(t, h.request("CHECK", "a", "10.1.0.3")).want(t, 102)
			h.do(t, h.request("CHECK", "a", "10.1.0.2").set("name", "other")).want(t, 102)
		})
	})
}
