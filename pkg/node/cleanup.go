package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/registry"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Cleanup takes everything of ours out of the kernel, from every backend, and then out of the state directories. It may be
// repeated and killed: what is on disk goes last. The error names what strangers' rules kept alive.
func (n *Node) Cleanup(ctx context.Context) error {
	release, err := n.exclusive(ctx)
	if err != nil {
		return err
	}
	defer release()
	var failures []error
	for _, s := range n.everySettings() {
		failures = append(failures, n.removeEverywhere(ctx, s)...)
	}
	if err := errors.Join(failures...); err != nil && !onlyKept(failures) {
		return err
	}
	return errors.Join(append(failures, n.removeFiles()...)...)
}

// everySettings are those that rules on this node may have been made with.
func (n *Node) everySettings() []policy.Settings {
	all := []policy.Settings{n.settings()}
	if n.defaults.Chain != all[0].Chain {
		all = append(all, n.defaults)
	}
	return all
}

func (n *Node) removeEverywhere(ctx context.Context, s policy.Settings) []error {
	var failures []error
	for _, family := range []policy.Family{policy.IPv4, policy.IPv6} {
		for _, kind := range registry.Standing(n.host, s, family) {
			failures = append(failures, n.open(kind).Remove(ctx, s, family))
		}
	}
	return failures
}

func onlyKept(failures []error) bool {
	for _, err := range failures {
		var kept *backend.Kept
		if err != nil && !errors.As(err, &kept) {
			return false
		}
	}
	return true
}

// removeFiles leaves the lock, which this process holds, and directories that hold something of others.
func (n *Node) removeFiles() []error {
	var failures []error
	for _, path := range []string{
		n.records.Dir, filepath.Join(n.stateDir, deletedDir), filepath.Join(n.stateDir, decisionFile), filepath.Join(n.dataDir, policyFile),
	} {
		if err := os.RemoveAll(path); err != nil {
			failures = append(failures, fmt.Errorf("remove state: %w", err))
		}
	}
	_ = os.Remove(n.dataDir)
	return failures
}
