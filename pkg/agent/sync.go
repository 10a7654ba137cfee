package agent

import (
	"context"
	"errors"

	"github.com/ip-masq/ip-masq-cni/pkg/cli"
	"github.com/ip-masq/ip-masq-cni/pkg/filelock"
)

// sync reconciles once. A bad config is reported after the last good policy was healed.
func (p Program) sync(o Options, _ []string) error {
	lock, err := hold(o.StateDir)
	var held *filelock.HeldError
	if errors.As(err, &held) {
		return p.syncByDaemon(held)
	}
	if err != nil {
		return err
	}
	defer lock.Release()
	log := o.Logging.Logger(p.Stderr)
	n := newNode(o, log)
	ctx, cancel := context.WithTimeout(context.Background(), syncTime)
	defer cancel()
	source := p.commandSource(o, n)
	inForce, configErr := source.load()
	if configErr == nil {
		printFindings(p.Stderr, source.findings) // all of them warnings
	}
	result, err := n.Sync(ctx, inForce)
	if err == nil && result.Former != nil {
		endFlows(ctx, n, policyChange{*result.Former, inForce}, log)
	}
	if err := errors.Join(configErr, err); err != nil {
		return err
	}
	log.Log(ctx, cli.V(2), "synced", "policy", source.origin, "changed", result.Changed, "pods", result.Pods, "restored", result.Repaired)
	return nil
}

// syncByDaemon is for a node on which a daemon runs: a sync with other flags would change rules and persisted policy, and the
// daemon would change them back. Asking the daemon to sync belongs here.
func (p Program) syncByDaemon(held *filelock.HeldError) error {
	return anotherAgent(held, "it syncs by itself, and at once on SIGHUP; end it first to sync with other flags")
}
