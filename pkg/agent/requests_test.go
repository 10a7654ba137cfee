package agent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestSyncRequests: who asks waits for a sync that begins after he asked; those who ask at once share one, and who asks a daemon
// that ends gets no answer.
func TestSyncRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin, syncs := time.Now(), 0
		requests := make(chan syncRequest)
		ctx, end := context.WithCancel(t.Context())
		l := &loop{log: discard(), requests: requests, sync: func(context.Context, string) outcome {
			syncs++
			time.Sleep(time.Second)
			return outcome{interval: time.Hour}
		}}
		go l.run(ctx)
		answered := make(chan time.Duration, 2)
		ask := func() {
			request := syncRequest{done: make(chan struct{})}
			requests <- request
			select {
			case <-request.done:
				answered <- time.Since(begin)
			case <-t.Context().Done():
			}
		}
		time.Sleep(500 * time.Millisecond)
		go ask()
		go ask()
		for range 2 {
			if at := <-answered; at != 2*time.Second || syncs != 2 {
				t.Errorf("answered after %s and %d syncs, want 2s and 2", at, syncs)
			}
		}
		time.Sleep(time.Minute)
		go ask()
		time.Sleep(500 * time.Millisecond)
		end()
		time.Sleep(time.Minute)
		if len(answered) > 0 || syncs != 3 {
			t.Errorf("%d answers after %d syncs of a daemon that ends", len(answered), syncs)
		}
	})
}
