package iptables_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/iptables"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// TestLockIsTakenSoon: who waits for the xtables lock has it when it is free, and not at the next full second, as iptables-legacy
// 1.8.7 does when nothing tells it otherwise.
func TestLockIsTakenSoon(t *testing.T) {
	if netnstest.Emulated() {
		t.Skip("one second is too little to tell in an emulator; there the plugin's crowds beside a syncing agent show it")
	}
	k := newKernel(t, backend.IPTablesLegacy)
	release := netnstest.HoldLock(t, os.Getenv("XTABLES_LOCKFILE"))
	done := make(chan error, 1)
	go func() {
		done <- k.in(func(ctx context.Context) error {
			_, err := k.b.Probe(ctx, policy.IPv4)
			return err
		})
	}()
	select {
	case err := <-done:
		t.Fatalf("written while the lock was held: %v", err)
	case <-time.After(250 * time.Millisecond): // it has looked once
	}
	release()
	select {
	case err := <-done:
		k.must(err, "Probe")
	case <-time.After(500 * time.Millisecond): // 250 ms before it would look again
		t.Error("waits on, though the lock is free")
		k.must(<-done, "Probe")
	}
}

// TestLockIsHeld: the error says in one line what stopped the program.
func TestLockIsHeld(t *testing.T) {
	k := newKernel(t, backend.IPTablesLegacy)
	netnstest.HoldLock(t, os.Getenv("XTABLES_LOCKFILE"))
	err := k.Do(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), netnstest.Limit(2*time.Second))
		defer cancel()
		_, err := k.b.Probe(ctx, policy.IPv4)
		return err
	})
	var failed *iptables.ExitError
	if !errors.Is(err, backend.ErrBusy) || !errors.As(err, &failed) {
		t.Fatalf("got %v, want ErrBusy", err)
	}
	const want = ": exit status 4: Another app is currently holding the xtables lock. Stopped waiting after "
	if got := failed.Error(); !strings.HasPrefix(got, failed.Program+want) {
		t.Errorf("%q, want it to begin with the program and %q", got, want)
	}
}

// TestComplaint: of what a program complained of, the line that says why it ended.
func TestComplaint(t *testing.T) {
	for _, c := range []struct {
		name, stderr string
		status       int
		want         string
	}{
		{"one line", "No chain/target/match by that name.\n", 1, "p: exit status 1: No chain/target/match by that name."},
		{"the first of several", "p: unknown option \"--x\"\nError occurred at line: 3\n", 2, `p: exit status 2: p: unknown option "--x"`},
		{"not the option that we gave", "Ignoring deprecated --wait-interval option.\np: line 3 failed\n", 1, "p: exit status 1: p: line 3 failed"},
		{"that option alone", "Ignoring deprecated --wait-interval option.\n", 1, "p: exit status 1: Ignoring deprecated --wait-interval option."},
		{"a lock that 1.8.7 waited for", "Held; still 0s 20000us time ahead\nHeld. Stopped waiting after 1s.\n", 4, "p: exit status 4: Held. Stopped waiting after 1s."},
		{"a lock that 1.8.9 waited for", "Ignoring deprecated --wait-interval option.\nCan't lock\nHeld. Stopped waiting after 1s.\n", 4, "p: exit status 4: Held. Stopped waiting after 1s."},
		{"nothing", "", 1, "p: exit status 1: "},
	} {
		if got := (&iptables.ExitError{Program: "p", Status: c.status, Stderr: c.stderr}).Error(); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
