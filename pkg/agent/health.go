package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// health is what the probes tell. Ready means that the rules were read back from the kernel and the config is good; live
// means only that the loop turns, so that a slow iptables never gets the process killed.
type health struct {
	mu       sync.Mutex
	problem  error
	lastTurn time.Time
	budget   time.Duration
}

func newHealth() *health {
	return &health{problem: errors.New("the rules were not read back from the kernel yet"), lastTurn: time.Now(), budget: time.Minute}
}

// set records the outcome of a turn of the loop, nil for ready. The next turn is due after interval.
func (h *health) set(problem error, interval time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.problem, h.lastTurn, h.budget = problem, time.Now(), 2*interval+2*syncTime
}

func (h *health) ready() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.problem
}

func (h *health) live() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if late := time.Since(h.lastTurn); late > h.budget {
		return fmt.Errorf("the loop has not turned for %s", late.Round(time.Second))
	}
	return nil
}

// serve answers the probes until ctx ends. It returns once it listens, or with the reason why it cannot.
func (h *health) serve(ctx context.Context, address string) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("--metrics-bind-address: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/livez", answer(h.live))
	mux.HandleFunc("/healthz", answer(h.live))
	mux.HandleFunc("/readyz", answer(h.ready))
	mux.HandleFunc("/metrics", h.metrics)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	go func() { _ = server.Serve(listener) }()
	return nil
}

// answer says "ok", or 503 with the reason.
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

// metrics says in the text format of Prometheus what the probes say.
func (h *health) metrics(w http.ResponseWriter, _ *http.Request) {
	ready := 0
	if h.ready() == nil {
		ready = 1
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = fmt.Fprintf(w, "# HELP ip_masq_agent_ready Whether the rules were read back from the kernel and the config is good.\n"+
		"# TYPE ip_masq_agent_ready gauge\nip_masq_agent_ready %d\n", ready)
}
