package agent

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/filelock"
)

// holderWait lets an agent that is being replaced, or a command that is about to finish, end first.
const holderWait = time.Second

// lockName is the file in the state directory that the daemon locks while it runs.
const lockName = "agent.lock"

// hold makes this process the only one that changes the node until the lock is released. The error is a *filelock.HeldError
// while another one does.
func hold(stateDir string) (*filelock.Lock, error) {
	ctx, cancel := context.WithTimeout(context.Background(), holderWait)
	defer cancel()
	return filelock.Acquire(ctx, filepath.Join(stateDir, lockName), filelock.Exclusive)
}

// anotherAgent says who holds the node, and what to do about it.
func anotherAgent(held error, fix string) error {
	return fmt.Errorf("another agent runs on this node: %w; %s", held, fix)
}
