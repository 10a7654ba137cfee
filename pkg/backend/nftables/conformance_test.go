package nftables_test

import (
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/backendtest"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/nftables"
)

// TestConformance runs with both ways to change destinations, whatever the kernel is: without traffic both are right everywhere.
func TestConformance(t *testing.T) {
	t.Run("in place", func(t *testing.T) {
		backendtest.Run(t, func() backend.Backend { return nftables.NewWith(nftables.InPlace) })
	})
	t.Run("second set", func(t *testing.T) {
		backendtest.Run(t, func() backend.Backend { return nftables.NewWith(nftables.SecondSet) })
	})
}
