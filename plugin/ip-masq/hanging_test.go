package main

import (
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// TestHanging: an iptables that never ends, itself or by a child that keeps its pipes open, and locks that are never released.
// All of it at once, since all of it is waiting; in an emulator two at a time: with more, iptables 1.8.7, which counts how often it
// looked for the lock and not the time, waits longer than the plugin does.
func TestHanging(t *testing.T) {
	causes := []struct {
		name string
		code uint
		harm func(t *testing.T, h *host) (release func())
	}{
		{"iptables hangs", 100, func(t *testing.T, h *host) func() { h.wrap(t, "exec sleep 60"); return func() {} }},
		{"a child of iptables hangs", 100, func(t *testing.T, h *host) func() { h.wrap(t, "sleep 60; exit 1"); return func() {} }},
		{"our lock is held", 11, func(t *testing.T, h *host) func() { return netnstest.HoldLock(t, filepath.Join(h.stateDir, "lock")) }},
		{"our turnstile is held", 11, func(t *testing.T, h *host) func() {
			return netnstest.HoldLock(t, filepath.Join(h.stateDir, "lock.turnstile"))
		}},
		{"the xtables lock is held", 11, func(t *testing.T, h *host) func() { return netnstest.HoldLock(t, h.lockFile()) }},
	}
	eachIPTables(t, func(t *testing.T, v variant) {
		var wg sync.WaitGroup
		turns := make(chan struct{}, netnstest.Crowd(len(causes)))
		for _, cause := range causes {
			if v.Name == "nft" && strings.Contains(cause.name, "xtables") {
				continue // iptables-nft takes no lock
			}
			h := newHost(t, v)
			h.add(t, "b", "10.1.0.3")
			h.add(t, "c", "10.1.0.5")
			h.nat(t, "-N", "KUBE-SERVICES")
			bad := h.with(t, `exec "$REAL" "$@"`)
			release := cause.harm(t, bad)
			wg.Go(func() {
				turns <- struct{}{}
				defer func() { <-turns }()
				bad.wantHanging(t, cause.name, cause.code)
				release()
				h.wantAfterHanging(t)
			})
		}
		wg.Wait()
	})
}

// wantHanging wants the code for whatever has to change something, and success for DELs that find nothing on record. With
// iptables-nft a DEL starts no process that could hang, but it may wait for another verb that does.
func (h *host) wantHanging(t *testing.T, cause string, code uint) {
	t.Helper()
	requests := []*request{
		h.request("ADD", "a", "10.1.0.2"), h.request("ADD", "b", "10.1.0.3"), h.request("DEL", "c"),
		h.request("ADD", "first", "10.1.0.4").set("stateDir", h.stateDir+"2"),
		h.request("DEL", "x"), h.status(),
	}
	want := []uint{code, code, code, code, 0, 0}
	if strings.HasPrefix(cause, "our") {
		want[3] = 0 // that one has a lock of its own
	} else if h.variant.Name == "nft" {
		want[2] = 0
	}
	for i, got := range h.all(t, requests...) {
		waited := (want[i] == code || i == 2) && got.code() == 11 // for one of the others, which hangs
		if got.code() != want[i] && !waited {
			t.Errorf("%s: %s of %q: code %d, want %d: %+v", cause, requests[i].env["CNI_COMMAND"], requests[i].env["CNI_CONTAINERID"], got.code(), want[i], got.err)
		}
	}
}

// wantAfterHanging: b's rule is all there is. A record may have stayed where even taking back met the hang; the DEL that runtimes
// send after a failed ADD removes it.
func (h *host) wantAfterHanging(t *testing.T) {
	t.Helper()
	h.must(t, h.request("DEL", "first").set("stateDir", h.stateDir+"2"))
	h.del(t, "c")
	h.wantTable(t, policy.IPv4, h.defaultTable(policy.IPv4, podLine("10.1.0.3", "b")))
	h.del(t, "a")
	h.wantPods(t, podLine("10.1.0.3", "b"))
}
