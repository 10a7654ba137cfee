package runtime

import (
	"os"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// setup is what the tests are repeated over.
type setup struct {
	programs   string // directory of containerd and its shim, on the node
	cniVersion string
	backend    string
}

// The distribution's containerd, and the newest, which asks plugins for their STATUS.
const (
	distribution = "/usr/bin"
	newest       = "/programs/tools/containerd" // bin/tools/containerd
)

var setups = map[string]setup{
	"distribution/iptables": {distribution, "1.0.0", "iptables"},
	"distribution/nftables": {distribution, "1.0.0", "nftables"},
	"newest/iptables":       {newest, "1.1.0", "iptables"},
	"newest/nftables":       {newest, "1.1.0", "nftables"},
}

func eachSetup(t *testing.T, test func(t *testing.T, s setup)) {
	for name, s := range setups {
		t.Run(name, func(t *testing.T) {
			s.require(t)
			t.Parallel()
			test(t, s)
		})
	}
}

// require names what scripts/setup test runtime brings.
func (s setup) require(t *testing.T) {
	t.Helper()
	netnstest.Require(t, "containerd", "ctr", "runc", "iptables", "nft", "bridge", "host-local", "loopback")
	if s.programs != newest {
		return
	}
	if _, err := os.Stat("bin/tools/containerd/containerd"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%v; scripts/setup runtime builds it", err)
		}
		t.Skipf("%v; scripts/setup runtime builds it", err)
	}
}
