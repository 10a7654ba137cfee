package e2e

import (
	"maps"
	"sync"
	"testing"
	"time"
)

// stream is a pod that opens one connection after another, and who it was seen as.
type stream struct {
	stop  chan struct{}
	ended sync.WaitGroup
	mu    sync.Mutex
	seen  map[string]int
}

// talk starts a stream of new connections, each on a socket of its own, so that each is decided about anew.
func (r *rig) talk(t *testing.T, p *pod) *stream {
	t.Helper()
	s := &stream{stop: make(chan struct{}), seen: map[string]int{}}
	s.ended.Go(func() {
		for {
			select {
			case <-s.stop:
				return
			case <-time.After(2 * time.Millisecond):
			}
			got := seenAs(p.Pod, r.Internet.IPv4)
			s.mu.Lock()
			s.seen[got]++
			s.mu.Unlock()
		}
	})
	s.await(t, 10)
	return s
}

// await lets so many more connections be made.
func (s *stream) await(t *testing.T, n int) {
	t.Helper()
	start := s.count()
	for end := time.Now().Add(patience); s.count() < start+n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the stream stands still: %v", s.seen)
		}
	}
}

func (s *stream) count() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range maps.Values(s.seen) {
		n += c
	}
	return n
}

// wantOnly ends the stream and fails unless all of it came from one address.
func (s *stream) wantOnly(t *testing.T, address string) {
	t.Helper()
	s.await(t, 20)
	close(s.stop)
	s.ended.Wait()
	if len(s.seen) != 1 || s.seen[address] == 0 {
		t.Errorf("seen as %v, want only %s", s.seen, address)
	}
}
