package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/filelock"
)

const holderFile = "agent.lock"

// holderWait lets an agent that is being replaced end first.
const holderWait = time.Second

// hold makes this process the only agent of a state directory until it ends, or says who is.
func hold(stateDir string) (*filelock.Lock, error) {
	ctx, cancel := context.WithTimeout(context.Background(), holderWait)
	defer cancel()
	lock, err := filelock.Acquire(ctx, filepath.Join(stateDir, holderFile), filelock.Exclusive)
	var held *filelock.HeldError
	if errors.As(err, &held) {
		return nil, fmt.Errorf("another agent runs on this node: %w; end it first, or give this one its own --state-dir", err)
	}
	return lock, err
}
