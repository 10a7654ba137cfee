package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"

	"github.com/ip-masq/ip-masq-cni/pkg/cli"
	"github.com/ip-masq/ip-masq-cni/pkg/filelock"
)

// sync reconciles once. A bad config is reported after the last good policy was healed.
func (p Program) sync(o Options, _ []string) error {
	var held *filelock.HeldError
	if errors.As(filelock.Check(filepath.Join(o.StateDir, lockName), filelock.Shared), &held) {
		return p.syncByDaemon(o, held)
	}
	lock, err := hold(o.StateDir)
	if errors.As(err, &held) {
		return p.syncByDaemon(o, held)
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
	if change, is := flowChangeOf(result, inForce); err == nil && is {
		endFlows(ctx, n, change, log)
	}
	if err := errors.Join(configErr, err); err != nil {
		return err
	}
	log.Log(ctx, cli.V(2), "synced", "policy", source.origin, "changed", result.Changed, "pods", result.Pods, "restored", result.Repaired)
	return nil
}

// syncByDaemon has the daemon sync, which it does by its own flags: what other flags changed it would change back.
func (p Program) syncByDaemon(o Options, held *filelock.HeldError) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*syncTime)
	defer cancel()
	var done syncDocument
	daemon, err := askDaemon(ctx, o, func(daemon greeting) error {
		if names := o.differing(daemon.Flags); names != "" {
			return anotherAgent(held, "it syncs by its own flags: leave out "+names+", or end it first")
		}
		return nil
	}, http.MethodPost, "/v1/sync", &done)
	switch {
	case err != nil:
		return err
	case !daemon.Running:
		return p.sync(o, nil) // it ended meanwhile
	case !daemon.Responding:
		return anotherAgent(held, "it does not answer: look at its log, or end it first")
	case done.LastSync == nil:
		return errEnding
	case done.LastSync.Error != nil:
		return fmt.Errorf("the daemon: %s", *done.LastSync.Error)
	}
	o.Logging.Logger(p.Stderr).Log(ctx, cli.V(2), "synced by the daemon", "changed", done.Changed)
	return nil
}
