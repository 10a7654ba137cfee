package agent

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/cli"
)

// loop calls one function, which syncs, for several reasons. It never runs two syncs at once.
type loop struct {
	sync func(ctx context.Context, reason string) outcome
	log  *slog.Logger

	configChanges <-chan struct{}
	ruleChanges   <-chan struct{} // the kernel reports that somebody changed rules
	podChanges    <-chan struct{} // the runtime has a pod that is not on record, or the plugin recorded one
	// addressChanges: one of the node's addresses came or went that the policy may give to connections
	addressChanges <-chan struct{}
	hangups        <-chan os.Signal
	requests       <-chan syncRequest

	asked []syncRequest // to be answered after the next sync
}

// syncRequest is a command that waits for a sync. done is closed after one that began later than the request came.
type syncRequest struct{ done chan struct{} }

// run syncs until ctx ends: at start, when the config changes, on SIGHUP, every resync interval, soon after a failure, when pods
// came, when the node's addresses changed, and when somebody changed the kernel's rules.
func (l *loop) run(ctx context.Context) {
	var s schedule
	for reason := "start"; reason != ""; reason = l.wait(ctx, &s) {
		l.takeRequests()
		o := l.sync(ctx, reason)
		s.end(time.Now(), o)
		if ctx.Err() != nil {
			return // what was asked for is not done; who waits notices that the daemon ends
		}
		for _, request := range l.asked {
			close(request.done)
		}
		l.asked = nil
	}
}

// takeRequests answers with one sync all that ask before it begins.
func (l *loop) takeRequests() {
	for {
		select {
		case request := <-l.requests:
			l.asked = append(l.asked, request)
		default:
			return
		}
	}
}

// wait returns at the next reason to sync, empty when ctx ended. A change of rules, pods or addresses has to wait, for as long as
// the schedule says.
func (l *loop) wait(ctx context.Context, s *schedule) (reason string) {
	reason = "resync interval"
	if s.last.failed {
		reason = "retry"
	}
	for rules, node := false, false; ; {
		timer := time.NewTimer(time.Until(s.next(rules, node)))
		select {
		case <-ctx.Done():
			reason = ""
		case <-l.configChanges:
			reason = "config changed"
		case <-l.hangups:
			reason = "SIGHUP"
		case request := <-l.requests:
			l.asked = append(l.asked, request)
			reason = "sync command"
		case <-l.ruleChanges:
			l.log.Log(ctx, cli.V(6), "the kernel reports a change of rules")
			rules = true
			if !s.last.failed && !s.last.ignoreKernel {
				reason = "rules changed"
			}
			timer.Stop()
			continue
		case <-l.podChanges:
			node = true
			if !s.last.failed {
				reason = "pods changed"
			}
			timer.Stop()
			continue
		case <-l.addressChanges:
			node = true
			if !s.last.failed {
				reason = "addresses changed"
			}
			timer.Stop()
			continue
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return ""
		}
		return reason
	}
}

// background runs a job beside the loop: one at a time, and always on the newest state that it was given, so that what is slow
// neither delays a repair nor piles up.
type background[T any] struct {
	pending chan T
	merge   func(older, newer T) T
}

// startBackground runs job until ctx ends. merge joins a state that no job took yet with a newer one.
func startBackground[T any](ctx context.Context, job func(context.Context, T), merge func(older, newer T) T) *background[T] {
	b := &background[T]{pending: make(chan T, 1), merge: merge}
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case state := <-b.pending:
				job(ctx, state)
			}
		}
	}()
	return b
}

// submit never waits. It is for one goroutine, the loop's.
func (b *background[T]) submit(state T) {
	select {
	case older := <-b.pending:
		state = b.merge(older, state)
	default:
	}
	b.pending <- state
}

// newest is the merge of states of which only the last matters.
func newest[T any](_, newer T) T { return newer }
