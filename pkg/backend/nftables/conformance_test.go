package nftables_test

import (
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/backendtest"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/nftables"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// TestConformance runs with both ways to change destinations, whatever the kernel is: without traffic both are right everywhere. In an
// emulator, which takes ten minutes for each, it runs with the way that the kernel gets.
func TestConformance(t *testing.T) {
	for _, way := range []nftables.Changes{nftables.InPlace, nftables.SecondSet} {
		t.Run(string(way), func(t *testing.T) {
			if netnstest.Emulated() && way != nftables.OfThisKernel() {
				t.Skipf("this kernel gets the other way: %s", nftables.OfThisKernel())
			}
			backendtest.Run(t, func() backend.Backend { return nftables.NewWith(way) })
		})
	}
}
