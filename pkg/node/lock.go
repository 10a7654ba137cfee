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

// flock opens and locks a file; closing it releases the lock. Waiting is the kernel's, which wakes those who wait one by one,
// where polling would keep a hundred of them busy.
func flock(ctx context.Context, path string, how int) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	fd := int(file.Fd())
	if unix.Flock(fd, how|unix.LOCK_NB) == nil {
		return file, nil
	}
	start := time.Now()
	locked := make(chan error)
	go func() {
		err := flockNow(fd, how)
		select {
		case locked <- err:
		case <-ctx.Done(): // the call cannot be called off, but nobody waits for what it got
			_ = file.Close()
		}
	}()
	select {
	case err = <-locked:
		if err == nil {
			return file, nil
		}
		_ = file.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %s is held by somebody else for %s; see who with `fuser %s`",
			backend.ErrBusy, path, time.Since(start).Round(time.Second), path)
	}
}

// flockNow waits as long as it takes.
func flockNow(fd, how int) error {
	for {
		if err := unix.Flock(fd, how); err != unix.EINTR {
			return err
		}
	}
}
