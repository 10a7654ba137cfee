package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/node"
)

// Times of the loop. A failed sync is tried again soon, then less and less often, but never less often than a resync.
const (
	syncTime   = 30 * time.Second
	firstRetry = 500 * time.Millisecond
)

// loop is the daemon: one sync function, and several reasons to call it.
type loop struct {
	node   *node.Node
	source *source
	health *health
	log    *slog.Logger
	retry  time.Duration
	said   string
}

// run syncs until ctx ends: at start, when the config changes, on SIGHUP, and every resync interval.
func (l *loop) run(ctx context.Context, configPath string) {
	changed := make(chan struct{}, 1)
	go watch(ctx, configPath, changed)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for {
		timer := time.NewTimer(l.turn(ctx))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-changed:
		case <-hangup:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// turn syncs once and returns how long to wait for the next.
func (l *loop) turn(ctx context.Context) time.Duration {
	policy, configErr := l.source.load()
	ctx, cancel := context.WithTimeout(ctx, syncTime)
	defer cancel()
	result, err := l.node.Sync(ctx, policy)
	if errors.Is(ctx.Err(), context.Canceled) {
		return 0
	}
	wait := l.pause(err)
	l.health.set(errors.Join(configErr, err), wait)
	l.report(result, err)
	return wait
}

func (l *loop) pause(err error) time.Duration {
	if err == nil {
		l.retry = 0
		return l.source.interval
	}
	l.retry = min(max(2*l.retry, firstRetry), l.source.interval)
	return l.retry
}

// report logs changes, and a failure once until it becomes another or ends.
func (l *loop) report(result node.Result, err error) {
	switch text := fmt.Sprint(err); {
	case err != nil && text != l.said:
		l.said = text
		l.log.Error("the rules could not be put in place; trying again", "error", err)
	case err == nil && (l.said != "" || result.Changed):
		l.said = ""
		l.log.Info("rules are in place", "backend", result.Backend, "policy", l.source.origin, "pods", result.Pods)
	case err == nil:
		l.log.Debug("nothing to change", "backend", result.Backend, "pods", result.Pods)
	}
}
