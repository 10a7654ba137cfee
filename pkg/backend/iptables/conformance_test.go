package iptables_test

import (
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/backendtest"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/iptables"
)

func TestConformance(t *testing.T) {
	for _, kind := range []backend.Kind{backend.IPTablesNFT, backend.IPTablesLegacy} {
		t.Run(string(kind), func(t *testing.T) {
			backendtest.Run(t, func() backend.Backend { return iptables.New(kind, "") })
		})
	}
}
