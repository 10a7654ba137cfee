package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/filelock"
)

// The node's lock has two files. Everybody passes the turnstile first, one at a time, and holds it only while waiting for the
// lock itself; so a writer that waits lets no further readers in, and a stream of ADDs cannot starve the agent.
const (
	lockFile      = "lock"
	turnstileFile = "lock.turnstile"
)

// shared takes the lock beside other ADDs and DELs; exclusive takes it alone. The returned function releases it, and so does
// the end of the process, however it ends.
func (n *Node) shared(ctx context.Context) (func(), error) { return n.lock(ctx, filelock.Shared) }

func (n *Node) exclusive(ctx context.Context) (func(), error) { return n.lock(ctx, filelock.Exclusive) }

func (n *Node) lock(ctx context.Context, mode filelock.Mode) (func(), error) {
	turnstile, err := filelock.Acquire(ctx, filepath.Join(n.stateDir, turnstileFile), filelock.Exclusive)
	if err != nil {
		return nil, busy(err)
	}
	defer turnstile.Release()
	lock, err := filelock.Acquire(ctx, filepath.Join(n.stateDir, lockFile), mode)
	if err != nil {
		return nil, busy(err)
	}
	return lock.Release, nil
}

// busy marks what a caller may try again.
func busy(err error) error {
	var held *filelock.HeldError
	if errors.As(err, &held) {
		return fmt.Errorf("%w: %w", backend.ErrBusy, err)
	}
	return err
}
