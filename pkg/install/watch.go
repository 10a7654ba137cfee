package install

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/cli"
	"github.com/ip-masq/ip-masq-cni/pkg/filelock"
	"github.com/ip-masq/ip-masq-cni/pkg/fingerprint"
	"github.com/ip-masq/ip-masq-cni/pkg/probes"
)

// How soon a change is noticed, for how long a file must lie still before it is taken for complete, and for how long a
// restless one is waited for. All of it, and the pace of a fight, fits into two seconds.
const (
	tickTime    = 150 * time.Millisecond
	settleTime  = 120 * time.Millisecond
	patience    = 800 * time.Millisecond
	recheckTime = 10 * time.Second // for what no file's time tells, such as a disk that has room again
)

// turnTime is more than a turn of the loop ever takes: another installer's lock, and a plugin that does not answer.
const turnTime = lockTime + 3*versionTime

// watcher repairs continuously. It polls: a few calls of stat see a file that is written in place, renamed over, moved in or
// deleted, a directory that comes back, and a mount that covers it, all in one way; inotify has a case for each of them.
type watcher struct {
	*installer
	log     *slog.Logger
	health  *probes.Health
	metrics *watchMetrics
	fight   fight
	pace    pace
	lock    *filelock.Lock // keeps uninstall off the node

	// elsewhere is the list that multus names in another directory, empty where the list is in the runtime's.
	elsewhere string

	seen     string    // fingerprint of the last look
	moved    time.Time // when that was new
	looked   time.Time
	pending  time.Time // since when something is to be done; zero for nothing
	proved   bool      // a pass of this process had the plugin answer
	failed   error     // what the last pass ended with, until something changes
	verified string    // fingerprint of source and target when their content was the same
	logged   string    // the last reason for not being ready, as far as the log goes
}

func newWatcher(o Options, stderr io.Writer) *watcher {
	const unseen = "the node has not been looked at yet"
	w := &watcher{log: o.Logging.Logger(stderr), health: probes.NewHealth(unseen, turnTime), logged: unseen}
	w.metrics = newMetrics(w.health)
	warned := map[string]bool{}
	warn := func(line string) {
		if !warned[line] {
			w.log.Warn(line)
		}
		warned[line] = true
	}
	w.installer = &installer{Options: o, watching: true, warn: warn, print: func(line string) {
		if w.fight.file != "" {
			w.log.Log(context.Background(), cli.V(2), line) // the fight itself is in the log, once
			return
		}
		w.log.Info(line)
	}}
	return w
}

func (w *watcher) run(ctx context.Context) error {
	w.log.Info("watching", "conf", w.ConfDir, "bin", w.BinDir)
	if w.MetricsAddress != "" {
		go w.serve(ctx)
	}
	for ctx.Err() == nil {
		w.tick(ctx)
		pause(ctx, tickTime)
	}
	w.log.Info("stopping; the plugin and its entry stay")
	return nil
}

// serve answers the probes until ctx ends. An address that is taken is tried again: it may be a former watch's that ends, and
// repairing matters more than being asked.
func (w *watcher) serve(ctx context.Context) {
	for warned := false; ctx.Err() == nil; pause(ctx, time.Second) {
		listener, err := probes.Listen(ctx, w.MetricsAddress)
		if err == nil {
			probes.Serve(ctx, listener, probes.Handler(w.health, w.metrics.Metrics))
			return
		}
		if !warned && ctx.Err() == nil {
			w.log.Error("the probes cannot be served; trying again", "error", err)
		}
		warned = true
	}
}

// tick looks where there is a reason to. Otherwise it reads no more than names and times, and it never writes because of the
// time.
func (w *watcher) tick(ctx context.Context) {
	w.keepLock()
	now := time.Now()
	if print := w.fingerprint(); print != w.seen {
		isFirst := w.seen == ""
		w.seen, w.moved, w.failed = print, now, nil
		if isFirst {
			w.moved = now.Add(-settleTime) // as install does, which does not wait for files to lie still
		}
		w.pace.end(nil)
	}
	if now.Sub(w.moved) < fingerprint.Grain || !w.pending.IsZero() || now.Sub(w.looked) > recheckTime {
		w.looked = now
		w.turn(ctx, now)
	}
	w.health.Turned(turnTime)
}

// fingerprint changes whenever a look may find something else than before. It costs names and times, no content.
func (w *watcher) fingerprint() string {
	var b strings.Builder
	b.WriteString(w.binaries())
	names, err := candidates(w.ConfDir)
	if err != nil {
		b.WriteString(err.Error())
	}
	for _, name := range names {
		b.WriteString("\n" + name + " " + fingerprint.Of(filepath.Join(w.ConfDir, name)))
	}
	if w.elsewhere != "" {
		b.WriteString("\n" + w.elsewhere + " " + fingerprint.Of(w.elsewhere))
	}
	return b.String()
}

func (w *watcher) binaries() string {
	return fingerprint.Of(w.source()) + " " + fingerprint.Of(w.target())
}

// turn brings the node on by one pass at most, and reports what is wrong with it still.
func (w *watcher) turn(ctx context.Context, now time.Time) {
	todo, blocked := w.look()
	if todo == nil {
		w.pending = time.Time{}
		w.report(ctx, slog.LevelWarn, blocked)
		return
	}
	if w.pending.IsZero() {
		w.pending = now
	}
	isStill := now.Sub(w.moved) >= settleTime || now.Sub(w.pending) >= patience
	switch {
	case isStill && w.pace.due(now):
		w.report(ctx, slog.LevelWarn, w.repair(ctx))
	case w.failed != nil:
		w.report(ctx, slog.LevelWarn, w.failed)
	default: // nothing has failed: it is about to be repaired
		w.report(ctx, slog.LevelInfo, errors.Join(todo, blocked))
	}
}

// look reads, and says what a pass would do, and what only another program or a person can repair.
func (w *watcher) look() (todo, blocked error) {
	plan, err := w.planInstall()
	if err == nil && filepath.Dir(plan.loaded()) != w.ConfDir {
		w.elsewhere = plan.loaded()
	}
	if err != nil && !errors.Is(err, errNotNow) {
		return nil, err
	}
	same, binaryErr := w.sameBinary()
	switch {
	case binaryErr != nil:
		return nil, errors.Join(err, binaryErr)
	case !same:
		return errors.New(w.target() + " is missing, or not the one of --source-dir"), err
	case err != nil:
		return nil, err
	case !plan.isNothing():
		return errors.New(plan.unlike() + " does not name ip-masq as it should: last, and once"), nil
	case !w.proved:
		return errors.New(w.target() + " has not been run yet to see whether it answers"), nil
	}
	return nil, plan.speaks(w.versions)
}

func (w *watcher) repair(ctx context.Context) error {
	w.pace.last = time.Now()
	changed, err := w.pass(ctx)
	if changed != "" {
		w.metrics.wrote()
	}
	if changed != "" && w.proved && w.fight.repaired(time.Now(), changed) {
		w.metrics.Counter("fights_total").Inc()
	}
	if err == nil {
		w.proved, w.pending = true, time.Time{}
	}
	w.failed = err
	w.pace.end(err)
	return err
}

// sameBinary is upToDate for a loop: it reads the two files only when one of them is another one.
func (w *watcher) sameBinary() (bool, error) {
	print := w.binaries()
	if print == w.verified {
		return true, nil
	}
	same, err := w.upToDate()
	if same {
		w.verified = print
	}
	return same, err
}

// report goes to the probes, and to the log once per problem.
func (w *watcher) report(ctx context.Context, level slog.Level, problem error) {
	if ctx.Err() != nil {
		return
	}
	if fight := w.fight.reason(time.Now()); fight != nil {
		level, problem = slog.LevelWarn, fight
	}
	text := ""
	if problem != nil {
		problem = exitError{problem}
		text = problem.Error()
	}
	w.health.Set(problem)
	switch {
	case text == w.logged:
	case text == "":
		w.log.Info("ready: " + w.state)
	case level == slog.LevelInfo:
		w.log.Info("not ready yet", "reason", text)
	default:
		w.log.Log(ctx, level, "not ready", "reason", text)
	}
	w.logged = text
}

// keepLock keeps uninstall off the node. The lock is taken again where the state directory was cleaned; where that cannot be,
// the repairs go on.
func (w *watcher) keepLock() {
	if w.lock != nil {
		if w.lock.Current() {
			return
		}
		w.lock.Release()
	}
	lock, _, err := w.acquire(watchLock, func(path string) (*filelock.Lock, error) {
		return filelock.Try(path, filelock.Shared)
	})
	if err != nil && (w.lock != nil || w.seen == "") {
		w.log.Warn("uninstall would not notice this watch", "error", err)
	}
	w.lock = lock
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
