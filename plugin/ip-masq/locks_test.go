package main

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// hold keeps a lock file locked until release or the end of the test.
func hold(t *testing.T, path string) (release func()) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	release = func() { _ = file.Close() }
	netnstest.OnExit(t, release)
	return release
}

// holdLocks is an agent or another verb that hangs, and another program's iptables.
func (h *host) holdLocks(t *testing.T) {
	t.Helper()
	hold(t, filepath.Join(h.stateDir, "lock"))
	hold(t, h.lockFile())
}
