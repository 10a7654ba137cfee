package iptables

import (
	"context"
	"errors"
	"os"
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
