package node

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// briefly is long enough for a lock that is free and too short for one that is held.
const briefly = 50 * time.Millisecond

type locker func(context.Context) (func(), error)

// try takes a lock and says whether it could.
func try(t *testing.T, take locker) (release func(), ok bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), briefly)
	defer cancel()
	release, err := take(ctx)
	if err != nil && !errors.Is(err, backend.ErrBusy) {
		t.Fatal(err)
	}
	return release, err == nil
}

func must(t *testing.T, take locker) (release func()) {
	t.Helper()
	release, ok := try(t, take)
	if !ok {
		t.Fatal("the lock is not free")
	}
	return release
}

// TestLock uses two Nodes of one state directory, as two processes are.
func TestLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "on", "demand")
	one, two := New(Options{StateDir: dir}), New(Options{StateDir: dir})
	for _, c := range []struct {
		name        string
		held, taken locker
		want        bool
	}{
		{"readers side by side", one.shared, two.shared, true},
		{"no writer beside a reader", one.shared, two.exclusive, false},
		{"no reader beside a writer", one.exclusive, two.shared, false},
		{"no two writers", one.exclusive, two.exclusive, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			releaseHeld := must(t, c.held)
			release, ok := try(t, c.taken)
			if ok != c.want {
				t.Errorf("taken is %t, want %t", ok, c.want)
			}
			if ok {
				release()
			}
			releaseHeld()
			must(t, one.exclusive)() // nothing is left over
		})
	}
}

// TestLockIsFairToWriters: readers come and go so that one always holds the lock; a writer that waits gets it all the same.
func TestLockIsFairToWriters(t *testing.T) {
	n := New(Options{StateDir: t.TempDir()})
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	defer readers.Wait()
	defer stop()
	for range 4 {
		readers.Go(func() {
			for ctx.Err() == nil {
				if release, err := n.shared(ctx); err == nil {
					time.Sleep(20 * time.Millisecond)
					release()
				}
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	for range 5 {
		wait, cancel := context.WithTimeout(ctx, 2*time.Second)
		release, err := n.exclusive(wait)
		cancel()
		if err != nil {
			t.Fatalf("starved: %v", err)
		}
		release()
	}
}

// TestLockGivesUp: the error is one that a caller may try again, and says where to look.
func TestLockGivesUp(t *testing.T) {
	n := New(Options{StateDir: t.TempDir()})
	defer must(t, n.exclusive)()
	ctx, cancel := context.WithTimeout(t.Context(), briefly)
	defer cancel()
	start := time.Now()
	_, err := n.shared(ctx)
	if !errors.Is(err, backend.ErrBusy) || !strings.Contains(err.Error(), filepath.Join(n.stateDir, lockFile)) {
		t.Errorf("error %v", err)
	}
	if took := time.Since(start); took > netnstest.Limit(time.Second) {
		t.Errorf("gave up after %s", took)
	}
}

func TestLockWithoutAPlace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "")
	for _, dir := range []string{file, filepath.Join(file, "below")} {
		if _, err := New(Options{StateDir: dir}).exclusive(t.Context()); err == nil || errors.Is(err, backend.ErrBusy) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: error %v", dir, err)
		}
	}
}
