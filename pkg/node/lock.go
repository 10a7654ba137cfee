package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
)

// The node's lock has two files. Everybody passes the turnstile first, one at a time, and holds it only while waiting for the
// lock itself; so a writer that waits lets no further readers in, and a stream of ADDs cannot starve the agent.
const (
	lockFile      = "lock"
	turnstileFile = "lock.turnstile"
)

// flock cannot time out, so it is tried again and again: quickly at first, because most holders are done in milliseconds.
const (
	firstPause = 200 * time.Microsecond
	lastPause  = 10 * time.Millisecond
)

// shared takes the lock beside other ADDs and DELs; exclusive takes it alone. The returned function releases it, and so does
// the end of the process, however it ends.
func (n *Node) shared(ctx context.Context) (func(), error)    { return n.lock(ctx, unix.LOCK_SH) }
func (n *Node) exclusive(ctx context.Context) (func(), error) { return n.lock(ctx, unix.LOCK_EX) }

func (n *Node) lock(ctx context.Context, how int) (func(), error) {
	if err := os.MkdirAll(n.stateDir, 0o755); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	turnstile, err := flock(ctx, filepath.Join(n.stateDir, turnstileFile), unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	defer func() { _ = turnstile.Close() }()
	file, err := flock(ctx, filepath.Join(n.stateDir, lockFile), how)
	if err != nil {
		return nil, err
	}
	return func() { _ = file.Close() }, nil
}

// flock opens and locks a file; closing it releases the lock.
func flock(ctx context.Context, path string, how int) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	start := time.Now()
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := unix.Flock(int(file.Fd()), how|unix.LOCK_NB)
		if err == nil {
			return file, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			_ = file.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			_ = file.Close()
			return nil, fmt.Errorf("%w: %s is held by somebody else for %s; see who with `fuser %s`",
				backend.ErrBusy, path, time.Since(start).Round(time.Second), path)
		case <-time.After(pause):
		}
	}
}
