package main

import (
	"path/filepath"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// holdLocks is an agent or another verb that hangs, and another program's iptables.
func (h *host) holdLocks(t *testing.T) {
	t.Helper()
	netnstest.HoldLock(t, filepath.Join(h.stateDir, "lock"))
	netnstest.HoldLock(t, h.lockFile())
}
