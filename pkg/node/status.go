package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/registry"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// ErrPodsAffected is in the error of Status where pods are attached already.
var ErrPodsAffected = errors.New("pods are attached on this node")

// failureTime is how long Status believes an earlier failure: what was missing may have been installed meanwhile, and a runtime
// whose STATUS fails sends no ADD that would find out.
const failureTime = 30 * time.Second

// Status reports whether an ADD would work now. It writes nothing, takes no lock, and starts one process per family at most. What
// the next ADD would put right, such as an empty chain, is no failure.
func (n *Node) Status(ctx context.Context) error {
	err := n.couldAttach(ctx)
	if records, _ := n.records.List(); err != nil && len(records) > 0 { // a broken one keeps no ADD from working
		err = fmt.Errorf("%w (%w)", err, ErrPodsAffected)
	}
	return err
}

func (n *Node) couldAttach(ctx context.Context) error {
	if err := writable(n.records.Dir); err != nil {
		return err
	}
	s := n.settings()
	b, decision, err := n.current()
	if errors.Is(err, ErrNotChosen) {
		return n.couldChoose(decision, s)
	}
	if err != nil {
		return err
	}
	for _, family := range s.Families() {
		if err := registry.Installed(n.host, b.Kind(), family); err != nil {
			return err
		}
		if err := n.answers(ctx, b, s, family); err != nil {
			return err
		}
	}
	return nil
}

// couldChoose reports whether the first ADD would find a backend, as far as that can be told without probing.
func (n *Node) couldChoose(d Decision, s policy.Settings) error {
	if age := time.Since(d.FailedAt); d.Failure != "" && age >= 0 && age < failureTime {
		return fmt.Errorf("%w: %s", ErrNoBackend, d.Failure)
	}
	var failures []error
	for _, kind := range n.choice.Kinds() {
		err := registry.Installed(n.host, kind, s.Families()[0])
		if err == nil {
			return nil
		}
		failures = append(failures, err)
	}
	return fmt.Errorf("%w: %w", ErrNoBackend, errors.Join(failures...))
}

// answers reads the shared chain, to see that the backend works at all; what stands in the chain does not matter. A lock that
// another program holds keeps it from being read for a moment, which says nothing about the backend.
func (n *Node) answers(ctx context.Context, b backend.Backend, s policy.Settings, family policy.Family) error {
	_, err := b.Chain(ctx, s, family)
	if errors.Is(err, backend.ErrBusy) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// writable reports why records could not be written to the state directory, or to where it would be made.
func writable(dir string) error {
	for {
		info, err := os.Stat(dir)
		switch {
		case err == nil && !info.IsDir():
			return fmt.Errorf("state directory %s: not a directory", dir)
		case err == nil:
			return hasRoom(dir)
		case !os.IsNotExist(err):
			return fmt.Errorf("state directory: %w", err)
		}
		dir = filepath.Dir(dir)
	}
}

func hasRoom(dir string) error {
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("state directory %s: %w", dir, err)
	}
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) == nil && fs.Blocks > 0 && fs.Bavail == 0 {
		return fmt.Errorf("state directory %s: %w", dir, unix.ENOSPC)
	}
	return nil
}
