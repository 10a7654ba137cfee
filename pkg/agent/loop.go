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

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfevents"
	"github.com/ip-masq/ip-masq-cni/pkg/node"
)

// Times of the loop. A failed sync is tried again soon, then less and less often, but never less often than a resync.
const (
	syncTime   = 30 * time.Second
	firstRetry = 500 * time.Millisecond
	// After a sync that a foreign change asked for, the next such one waits this long, and this many times as long as it took.
	shortestRest = 200 * time.Millisecond
	restFactor   = 10
)

// loop is the daemon: one sync function, and several reasons to call it.
type loop struct {
	node   *node.Node
	source *source
	health *health
	sentry *sentry
	log    *slog.Logger
	retry  time.Duration
	said   string
	deaf   bool // the backend in use is one whose changes the kernel does not report
}

// run syncs until ctx ends: at start, when the config changes, on SIGHUP, every resync interval, and when somebody changed the
// kernel's rules. Only the last has to wait: a storm of foreign changes gets a bounded share of one core.
func (l *loop) run(ctx context.Context, configPath string) {
	changed, meddled := make(chan struct{}, 1), make(chan struct{}, 1)
	go watch(ctx, configPath, changed)
	if err := nfevents.Watch(ctx, meddled); err != nil {
		l.log.Info("the kernel does not report changes of rules; they are repaired at every resync", "reason", err)
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for {
		began := time.Now()
		due := time.After(l.turn(ctx))
		ended := time.Now()
		rest := min(max(shortestRest, restFactor*ended.Sub(began)), l.source.interval)
		meddledNow := meddled
		if l.deaf {
			meddledNow = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-hangup:
		case <-due:
		case <-meddledNow:
			l.rest(ctx, time.Until(ended.Add(rest)), changed, hangup)
		}
	}
}

// rest waits, unless there is a reason that does not wait.
func (l *loop) rest(ctx context.Context, d time.Duration, changed <-chan struct{}, hangup <-chan os.Signal) {
	select {
	case <-ctx.Done():
	case <-changed:
	case <-hangup:
	case <-time.After(d):
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
	l.deaf = result.Backend == backend.IPTablesLegacy
	wait := l.pause(err)
	l.health.set(errors.Join(configErr, err), wait)
	l.report(result, err)
	if err == nil && result.Former != nil {
		if ended, err := l.node.EndFlows(ctx, *result.Former, policy); err != nil || ended > 0 {
			l.log.Info("ended connections whose verdict changed", "connections", ended, "error", err)
		}
	}
	if err == nil {
		l.sentry.look(ctx, policy, l.node.Records)
	}
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
