package agent

import (
	"context"
	"errors"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/socket"
	"github.com/ip-masq/ip-masq-cni/pkg/status"
	"github.com/ip-masq/ip-masq-cni/pkg/version"
)

// api is what the daemon answers on its socket. Nothing here waits for the loop but a request to sync, and nothing takes the
// node's lock.
func (d *daemon) api() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/version", func(w http.ResponseWriter, _ *http.Request) {
		socket.Answer(w, greeting{status.APIVersion, os.Getpid(), version.String(), d.options.values})
	})
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { socket.Answer(w, d.status.get()) })
	mux.HandleFunc("GET /v1/attachments", d.serveAttachments)
	mux.HandleFunc("GET /v1/who", d.serveWho)
	mux.HandleFunc("POST /v1/sync", d.serveSync)
	mux.HandleFunc("GET /v1/explain", d.serveExplain)
	return mux
}

// listen serves the socket until ctx ends, and makes it again where somebody took it away. A daemon without one keeps the node's
// rules all the same.
func (d *daemon) listen(ctx context.Context) {
	server := socket.NewServer(d.options.StateDir, d.api())
	lastLogged := ""
	for ; ctx.Err() == nil; pause(ctx, time.Second) {
		text := ""
		if err := server.Listen(); err != nil {
			text = err.Error()
		}
		if text != "" && text != lastLogged {
			d.log.Warn("commands cannot ask this daemon", "error", text)
		}
		lastLogged = text
	}
	server.Close()
}

// describe is the status of the node and of the daemon.
func (d *daemon) describe() status.Status {
	ctx, cancel := context.WithTimeout(context.Background(), syncTime)
	defer cancel()
	state := d.State()
	s := look(ctx, d.options, state.inForce())
	pid, own, current := os.Getpid(), version.String(), d.health.Live() == nil
	s.Daemon = status.Daemon{Running: true, Responding: true, PID: &pid, Version: &own, Since: &state.Since, Current: &current}
	if !state.LastSync.IsZero() {
		s.Daemon.LastSync = syncOf(state.LastSync, state.SyncError)
	}
	records, _ := d.node.Records() // what cannot be read has no name
	s.Ports = withNames(d.ports.current(), records)
	s.Repairs = &status.Repairs{Total: state.Repairs, Last: append([]status.Repair{}, state.LastRepairs...)}
	return s
}

func syncOf(at time.Time, err error) *status.Sync {
	if err == nil {
		return &status.Sync{Time: at, Result: status.ResultOK}
	}
	return &status.Sync{Time: at, Result: status.ResultFailed, Error: status.Known(oneLine(err))}
}

// attachments is the document of GET /v1/attachments.
type attachments struct {
	APIVersion  string                  `json:"apiVersion"`
	Attachments []attachment.Attachment `json:"attachments"`
}

func (d *daemon) serveAttachments(w http.ResponseWriter, _ *http.Request) {
	records, err := newNode(d.options, discard()).Records()
	if err != nil && len(records) == 0 {
		socket.Refuse(w, http.StatusInternalServerError, err)
		return
	}
	socket.Answer(w, attachments{status.APIVersion, append([]attachment.Attachment{}, records...)})
}

// syncDocument is the answer to POST /v1/sync.
type syncDocument struct {
	APIVersion string       `json:"apiVersion"`
	LastSync   *status.Sync `json:"lastSync"`
	Changed    bool         `json:"changed"`
}

var errEnding = errors.New("the daemon ends")

// serveSync has the loop sync once from its beginning, and answers with the result.
func (d *daemon) serveSync(w http.ResponseWriter, r *http.Request) {
	request := syncRequest{done: make(chan struct{})}
	select {
	case d.syncRequests <- request:
	case <-r.Context().Done():
		return
	}
	select {
	case <-request.done:
	case <-r.Context().Done():
		return
	}
	state := d.State()
	if state.LastSync.IsZero() {
		socket.Refuse(w, http.StatusServiceUnavailable, errEnding)
		return
	}
	socket.Answer(w, syncDocument{status.APIVersion, syncOf(state.LastSync, errors.Join(state.ConfigError, state.SyncError)), state.Result.Changed})
}

// shared computes something that many ask for at once. Who asks gets a value whose computation began after he asked, and those
// who ask while one is computed share the next.
type shared[T any] struct {
	compute func() T
	running sync.Mutex
	mu      sync.Mutex
	next    *computation[T]
}

type computation[T any] struct {
	done  chan struct{}
	value T
}

func (s *shared[T]) get() T {
	s.mu.Lock()
	c := s.next
	if c == nil {
		c = &computation[T]{done: make(chan struct{})}
		s.next = c
		go s.run(c)
	}
	s.mu.Unlock()
	<-c.done
	return c.value
}

func (s *shared[T]) run(c *computation[T]) {
	s.running.Lock()
	defer s.running.Unlock()
	s.mu.Lock()
	s.next = nil
	s.mu.Unlock()
	c.value = s.compute()
	close(c.done)
}
