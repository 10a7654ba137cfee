package iptables

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// TestThread: a call under the host's root sees its files, follows its links and runs in the caller's network namespace; nobody
// else does, and nothing of it lasts.
func TestThread(t *testing.T) {
	netnstest.Require(t)
	root := t.TempDir()
	for path, content := range map[string]string{"usr/sbin/real": "host", "etc/keep": ""} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, path), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for from, to := range map[string]string{"etc/absolute": "/usr/sbin/real", "usr/sbin/iptables": "/etc/absolute", "usr/sbin/iptables-restore": "../../etc/absolute", "sbin": "usr/sbin"} {
		if err := os.Symlink(to, filepath.Join(root, from)); err != nil {
			t.Fatal(err)
		}
	}
	space := netnstest.NewSpace(t, "thread")
	before := threads(t)
	for range 20 {
		var outside, inside string
		err := space.Do(func() error {
			outside, _ = os.Readlink("/proc/thread-self/ns/net")
			return Host(root).in(func() error {
				found, ok := pair("iptables")
				if !ok || found.command != "/usr/sbin/iptables" {
					t.Errorf("found %+v", found)
				}
				data, err := os.ReadFile(found.command)
				if string(data) != "host" {
					t.Errorf("read %q, %v", data, err)
				}
				return nil
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		_ = space.Do(func() error {
			return Host("").thread(context.Background(), func() error {
				inside, _ = os.Readlink("/proc/thread-self/ns/net")
				return nil
			})
		})
		if inside == "" || inside != outside {
			t.Errorf("network namespace %q in the call, %q outside", inside, outside)
		}
	}
	if _, err := os.Stat("/etc/keep"); err == nil {
		t.Error("the process is in the host's root")
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

// TestThreadLeavesWithTheContext: a call that hangs does not hold its caller.
func TestThreadLeavesWithTheContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	release := make(chan struct{})
	defer close(release)
	if err := Host("").thread(ctx, func() error { <-release; return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if err := Host("/no/such/root").in(func() error { return nil }); !errors.Is(err, unix.ENOENT) {
		t.Errorf("error %v", err)
	}
}
