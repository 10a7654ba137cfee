package iptables

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// TestOnThread: a call runs in the network namespace of its caller, and its thread does not last.
func TestOnThread(t *testing.T) {
	netnstest.Require(t)
	space := netnstest.NewSpace(t, "thread")
	before := threads(t)
	for range 20 {
		var outside, inside string
		err := space.Do(func() error {
			outside, _ = os.Readlink("/proc/thread-self/ns/net")
			return onThread(context.Background(), func() (err error) {
				inside, err = os.Readlink("/proc/thread-self/ns/net")
				return err
			})
		})
		if err != nil || inside != outside {
			t.Fatalf("network namespace %q in the call, %q outside, %v", inside, outside, err)
		}
	}
	netnstest.Eventually(t, 2*time.Second, "the calls' threads end", func() bool { return threads(t) <= before+10 })
}

func threads(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestOnThreadLeavesWithTheContext: a call that hangs does not hold its caller.
func TestOnThreadLeavesWithTheContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	release := make(chan struct{})
	defer close(release)
	if err := onThread(ctx, func() error { <-release; return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

// TestFindBelowRoot: links, absolute ones too, are followed inside the host's root.
func TestFindBelowRoot(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"usr/sbin", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "usr/sbin/xtables-nft-multi"), nil, 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	for from, to := range map[string]string{
		"usr/sbin/iptables": "/etc/alternative", "usr/sbin/iptables-restore": "../../etc/alternative", "etc/alternative": "/sbin/xtables-nft-multi", "sbin": "usr/sbin",
	} {
		if err := os.Symlink(to, filepath.Join(root, from)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", "/nowhere")
	if kind, ok := Host(root).Flavour(); !ok || kind != "iptables-nft" {
		t.Errorf("flavour %q, %v", kind, ok)
	}
	if found, err := Host(root).find("iptables-nft", 4); err != nil || found.command != "/usr/sbin/iptables" {
		t.Errorf("found %+v, %v", found, err)
	}
}
