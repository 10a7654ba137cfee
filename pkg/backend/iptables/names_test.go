package iptables

import (
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

func TestIsOwnChain(t *testing.T) {
	s := policy.DefaultSettings()
	for suffix, own := range map[string]bool{
		"": true, "-PODS": true, "-NODE": true, "-OUT": true, "-SRC": true, "-E1": true, "-E999": true,
		"-E": false, "-E0": false, "-E01": false, "-E1000": false, "-E-1": false, "-E+1": false, "-E1x": false, "-PROBE": false, "X": false,
	} {
		if IsOwnChain(s, s.Chain+suffix) != own {
			t.Errorf("%q is an own chain: %t", s.Chain+suffix, !own)
		}
	}
}
