package install

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// turnTime is more than a turn of the loop ever takes: another installer's lock, and a plugin that does not answer.
const turnTime = lockTime + 3*versionTime

// health is what the probes tell. Ready means that the runtime's network names us and the binary answered; live only that the
// loop turns.
type health struct {
	mu       sync.Mutex
	problem  error
	fighting bool
	repairs  int
	lastTurn time.Time
}

func newHealth() *health {
	return &health{problem: errors.New("nothing was looked at yet"), lastTurn: time.Now()}
}

func (h *health) set(problem error, fighting bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.problem, h.fighting = problem, fighting
}

func (h *health) repaired() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.repairs++
}

func (h *health) turned(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lastTurn = now
}

func (h *health) ready() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.problem
}

func (h *health) live() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if late := time.Since(h.lastTurn); late > turnTime {
		return fmt.Errorf("the loop has not turned for %s", late.Round(time.Second))
	}
	return nil
}

// serve answers the probes until ctx ends. An address that is taken is tried again: it may be a former watch's that ends, and
// repairing matters more than being asked.
func (h *health) serve(ctx context.Context, address string, log *slog.Logger) {
	var listener net.Listener
	for told := false; listener == nil; {
		var err error
		listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			if !told {
				log.Error("cannot serve the probes; trying on", "error", err)
			}
			told = true
			pause(ctx, time.Second)
		}
	}
	server := &http.Server{Handler: h.handler(), ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	_ = server.Serve(listener)
}

func (h *health) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/livez", answerProbe(h.live))
	mux.HandleFunc("/healthz", answerProbe(h.live))
	mux.HandleFunc("/readyz", answerProbe(h.ready))
	mux.HandleFunc("/metrics", h.metrics)
	return mux
}

// answerProbe says "ok", or 503 with the reason.
func answerProbe(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if err := check(); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = fmt.Fprintln(w, sentence(err))
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	}
}

// metrics is the text exposition by hand: a client library would double the program.
func (h *health) metrics(w http.ResponseWriter, _ *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	for _, m := range []struct {
		name, kind, help string
		value            int
	}{
		{"ip_masq_installer_ready", "gauge", "Whether the network that the runtime loads names ip-masq, and the plugin answered.", number(h.problem == nil)},
		{"ip_masq_installer_fight", "gauge", "Whether somebody else undoes the repairs again and again.", number(h.fighting)},
		{"ip_masq_installer_repairs_total", "counter", "Repairs of the plugin or its entry since the start.", h.repairs},
	} {
		_, _ = fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n%s %d\n", m.name, m.help, m.name, m.kind, m.name, m.value)
	}
}

func number(is bool) int {
	if is {
		return 1
	}
	return 0
}
