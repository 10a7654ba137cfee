package main

import (
	"context"
	"sync"
	"time"
)

// deadline is context.WithTimeout but for its timer, which starts only where somebody waits for it. A timer starts the runtime's
// poller and a thread that sleeps in it, and hardly any pod's start waits for anything.
type deadline struct {
	at    time.Time
	once  sync.Once
	timed context.Context
	stop  context.CancelFunc
}

// within returns a context that ends after d.
func within(d time.Duration) *deadline { return &deadline{at: time.Now().Add(d)} }

func (d *deadline) waiting() context.Context {
	d.once.Do(func() { d.timed, d.stop = context.WithDeadline(context.Background(), d.at) })
	return d.timed
}

func (d *deadline) Deadline() (time.Time, bool) { return d.at, true }
func (d *deadline) Done() <-chan struct{}       { return d.waiting().Done() }
func (d *deadline) Value(key any) any           { return d.waiting().Value(key) }

func (d *deadline) Err() error {
	if time.Now().Before(d.at) {
		return nil
	}
	return context.DeadlineExceeded
}
