package socket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func echo(text string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /text", func(w http.ResponseWriter, _ *http.Request) { Answer(w, text) })
	mux.HandleFunc("GET /no", func(w http.ResponseWriter, _ *http.Request) {
		Refuse(w, http.StatusBadRequest, errors.New("it is not Tuesday"))
	})
	return mux
}

func listen(t *testing.T, dir, text string) *Server {
	t.Helper()
	s := NewServer(dir, echo(text))
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func ask(t *testing.T, dir string) (text string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	err = NewClient(dir).Do(ctx, http.MethodGet, "/text", &text)
	return text, err
}

func TestAskAndAnswer(t *testing.T) {
	for name, dir := range map[string]string{"short": t.TempDir(), "longer than a socket's address": filepath.Join(t.TempDir(), strings.Repeat("d", 150))} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		listen(t, dir, name)
		info, err := os.Stat(Path(dir))
		if err != nil || info.Mode() != os.ModeSocket|0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
		if entries, _ := os.ReadDir(dir); len(entries) != 1 {
			t.Errorf("%s: left %v", name, entries)
		}
		if got, err := ask(t, dir); got != name || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		c := NewClient(dir)
		var text string
		var refused *Refused
		if err := c.Do(t.Context(), http.MethodGet, "/no", &text); !errors.As(err, &refused) || refused.Reason != "it is not Tuesday" || c.PID() != os.Getpid() {
			t.Errorf("%s: %v of process %d", name, err, c.PID())
		}
	}
}

// TestNobody: no directory, no socket, and one that a killed daemon left.
func TestNobody(t *testing.T) {
	stale := t.TempDir()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: Path(stale)})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{stale, t.TempDir(), "/no/such/directory"} {
		if _, err := ask(t, dir); !errors.Is(err, ErrNobody) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	listen(t, stale, "new")
	if got, err := ask(t, stale); got != "new" || err != nil {
		t.Errorf("after a daemon took over: %q, %v", got, err)
	}
}

// TestSocketThatWasRemoved is made again, and the next server's is left alone by the end of the one before.
func TestSocketThatWasRemoved(t *testing.T) {
	dir := t.TempDir()
	s := listen(t, dir, "first")
	if err := os.Remove(Path(dir)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Listen(); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := ask(t, dir); got != "first" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	listen(t, dir, "second")
	s.Close()
	if got, err := ask(t, dir); got != "second" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestManyClients(t *testing.T) {
	dir := t.TempDir()
	listen(t, dir, "all")
	var group sync.WaitGroup
	failures := make(chan error, 200)
	for range 200 {
		group.Go(func() {
			if got, err := ask(t, dir); got != "all" || err != nil {
				failures <- fmt.Errorf("%q, %w", got, err)
			}
		})
	}
	group.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
	}
}
