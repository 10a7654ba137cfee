// Package probes serves what kubelet and Prometheus ask a daemon: /livez, /healthz, /readyz and /metrics.
//
// It refuses to judge: the daemon says whether it is ready, and that its loop still turns.
package probes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// Health is what the probes answer. It may be used by several goroutines.
type Health struct {
	mu      sync.Mutex
	problem error
	turned  time.Time
	budget  time.Duration
}

// NewHealth returns a daemon that is not ready for the reason given, and that is alive for as long as its loop turns within
// budget.
func NewHealth(reason string, budget time.Duration) *Health {
	return &Health{problem: errors.New(reason), turned: time.Now(), budget: budget}
}

// Set says why the daemon is not ready, nil for ready.
func (h *Health) Set(problem error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.problem = problem
}

// Turned says that the loop turned just now, and how soon it will again at the latest.
func (h *Health) Turned(budget time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.turned, h.budget = time.Now(), budget
}

// Ready returns why the daemon is not ready.
func (h *Health) Ready() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.problem
}

// Live returns an error when the loop did not turn in time. Being slow or not ready is none, so that a kubelet does not kill a
// daemon for what a restart would not change.
func (h *Health) Live() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if late := time.Since(h.turned); late > h.budget {
		return fmt.Errorf("the loop has not turned for %s", late.Round(time.Second))
	}
	return nil
}

// Handler answers the probes, and /metrics with m.
func Handler(h *Health, m *Metrics) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/livez", answer(h.Live))
	mux.HandleFunc("/healthz", answer(h.Live))
	mux.HandleFunc("/readyz", answer(h.Ready))
	mux.Handle("/metrics", m)
	return mux
}

// answer writes "ok", or 503 with the reason.
func answer(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if err := check(); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = fmt.Fprintln(w, err)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	}
}

// Listen takes the address, so that a daemon can tell before it starts that another program has it.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	return (&net.ListenConfig{}).Listen(ctx, "tcp", address)
}

// Serve answers on the listener until ctx ends.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler) {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	_ = server.Serve(listener)
}
