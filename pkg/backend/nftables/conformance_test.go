package nftables_test

import (
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/backendtest"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/nftables"
)

func TestConformance(t *testing.T) {
	backendtest.Run(t, func() backend.Backend { return nftables.New() })
}
