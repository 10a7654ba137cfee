package netnstest

import (
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
)

// exits holds what is still to be undone when the process is told to end
// before its tests are over: t.Cleanup does not run then.
var exits struct {
	sync.Mutex
	watch   sync.Once
	pending []pending
}

type pending struct {
	once *sync.Once
	undo func()
}

// OnExit runs undo once: at the end of the test, or when the process receives
// SIGINT or SIGTERM, whichever comes first. Say it before making what undo
// removes. A test that sends itself one of these signals ends the test binary.
func OnExit(t TB, undo func()) {
	exits.watch.Do(watchSignals)
	once := &sync.Once{}
	exits.Lock()
	exits.pending = append(exits.pending, pending{once, undo})
	exits.Unlock()
	t.Cleanup(func() {
		once.Do(undo)
		forget(once)
	})
}

func forget(once *sync.Once) {
	exits.Lock()
	defer exits.Unlock()
	exits.pending = slices.DeleteFunc(exits.pending, func(p pending) bool { return p.once == once })
}

func watchSignals() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		sig := <-signals
		undoAll()
		// As shells report it. Sending it to ourselves again would do nothing
		// where it was ignored at the start, as in a background job.
		os.Exit(128 + int(sig.(syscall.Signal)))
	}()
}

// undoAll works backwards, as Cleanup does: the process in a namespace ends
// before the namespace goes. The lock is never given back, so that a test that
// still runs stops at the next thing that it wants to make.
func undoAll() {
	exits.Lock()
	for _, p := range slices.Backward(exits.pending) {
		p.once.Do(p.undo)
	}
}
