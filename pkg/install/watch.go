package install

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"time"
)

// How soon a change is noticed, for how long a file must lie still before it is taken for complete, and for how long a
// restless one is waited for. All of it, and the pace of a fight, fits into two seconds.
const (
	tickTime    = 150 * time.Millisecond
	settleTime  = 120 * time.Millisecond
	patience    = 800 * time.Millisecond
	racyTime    = time.Second      // a file may change twice within the grain of its times
	recheckTime = 10 * time.Second // for what no file's time tells, such as a disk that has room again
)

// watcher repairs for ever. It polls: a few calls of stat see a file that is written in place, renamed over, moved in or
// deleted, a directory that comes back, and a mount that covers it, all in one way; inotify has a case for each of them.
type watcher struct {
	*installer
	log    *slog.Logger
	health *health
	fight  fight
	lock   *os.File

	seen    string    // fingerprint of the last look
	moved   time.Time // when that was new
	looked  time.Time
	wanting time.Time // since when something is to be done; zero for nothing
	begun   bool      // the first pass was a success
	pace    pace
	failed  error  // what the last pass ended with, until something changes
	twins   string // fingerprint of source and target when their content was the same
	told    string // the problem in the log
}

func (p Program) watch(ctx context.Context, o Options) error {
	log := slog.New(slog.NewTextHandler(p.Stderr, nil))
	w := &watcher{log: log, health: newHealth()}
	w.installer = newInstaller(o, func(line string) { log.Info(line) })
	w.single = true
	if o.MetricsAddress != "" {
		go w.health.serve(ctx, o.MetricsAddress, log)
	}
	log.Info("watching", "conf", o.ConfDir, "bin", o.BinDir)
	for ctx.Err() == nil {
		w.tick(ctx)
		pause(ctx, tickTime)
	}
	log.Info("stopping; the plugin and its entry stay")
	return nil
}

// tick looks where there is a reason to. Otherwise it reads no more than names and times, and it never writes because of the
// time.
func (w *watcher) tick(ctx context.Context) {
	w.hold()
	now := time.Now()
	if print := w.fingerprint(); print != w.seen {
		w.seen, w.moved, w.failed = print, now, nil
		w.pace.reset()
	}
	if now.Sub(w.moved) < racyTime || !w.wanting.IsZero() || now.Sub(w.looked) > recheckTime {
		w.looked = now
		err := w.turn(ctx, now)
		w.report(ctx, err)
	}
	w.health.turned(time.Now())
}

// turn brings the node on by one pass at most, and returns what is wrong with it still.
func (w *watcher) turn(ctx context.Context, now time.Time) error {
	todo, work, err := w.look()
	if work == nil {
		w.wanting = time.Time{}
		return errors.Join(todo, err)
	}
	if w.wanting.IsZero() {
		w.wanting = now
	}
	still := now.Sub(w.moved) >= settleTime || now.Sub(w.wanting) >= patience
	if !still || !w.pace.due(now) {
		return errors.Join(cmp.Or(w.failed, todo), err)
	}
	return errors.Join(w.repair(ctx, work), err)
}

// work is what a look found to be done.
type work func(ctx context.Context) (changed bool, err error)

// look reads, and says what is to be done and by what. The error is what only somebody else can mend; the binary is kept
// meanwhile, because pods that are there already need it.
func (w *watcher) look() (todo error, by work, err error) {
	plan, err := w.plan()
	if err != nil && !errors.Is(err, errNotNow) {
		return nil, nil, err
	}
	same, binaryErr := w.same()
	switch {
	case binaryErr != nil:
		return nil, nil, errors.Join(err, binaryErr)
	case err != nil && !same:
		return w.noBinary(), w.keepBinary, err
	case err != nil:
		return nil, nil, err
	case !same:
		return w.noBinary(), w.pass, nil
	case plan.change != nil:
		return errors.New(plan.path + " does not name ip-masq as it should: last, and once"), w.pass, nil
	case !w.begun:
		return errors.New("the plugin was not run yet"), w.pass, nil
	}
	return nil, nil, plan.spoken(w.versions)
}

func (w *watcher) noBinary() error {
	return errors.New(w.target() + " is missing, or not the one of --source-dir")
}

func (w *watcher) repair(ctx context.Context, work work) error {
	w.pace.begin(time.Now())
	changed, err := work(ctx)
	if changed && w.begun {
		w.fight.add(time.Now())
		w.health.repaired()
	}
	if err == nil {
		w.begun, w.wanting = w.begun || len(w.versions) > 0, time.Time{}
	}
	w.failed = err
	w.pace.end(err)
	return err
}

// same is uptodate for a loop: it reads the two files only when one of them is another one.
func (w *watcher) same() (bool, error) {
	print := fingerprint(w.source()) + fingerprint(w.target())
	if print == w.twins {
		return true, nil
	}
	same, err := w.uptodate()
	if same {
		w.twins = print
	}
	return same, err
}

// report tells probes and log, the log once per problem.
func (w *watcher) report(ctx context.Context, problem error) {
	if ctx.Err() != nil {
		return
	}
	fighting := w.fight.active(time.Now())
	if fighting {
		problem = w.fight.reason(w.ConfDir)
	}
	w.health.set(problem, fighting)
	text := ""
	if problem != nil {
		text = sentence(problem)
	}
	if text == w.told {
		return
	}
	if w.told = text; text == "" {
		w.log.Info("ready: " + w.about)
		return
	}
	w.log.Warn("not ready", "reason", text)
}

// hold keeps uninstall off the node. Where that cannot be, for want of a state directory, the repairs go on.
func (w *watcher) hold() {
	lock, err := w.holdNode(w.lock)
	if err != nil && (w.lock != nil || w.seen == "") {
		w.log.Warn("uninstall would not notice this watch", "error", err)
	}
	w.lock = lock
}
