package probes_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ip-masq/ip-masq-cni/pkg/probes"
	"github.com/ip-masq/ip-masq-cni/pkg/version"
)

func get(t *testing.T, handler http.Handler, path string) (status int, body string) {
	t.Helper()
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func want(t *testing.T, handler http.Handler, path string, status int, body string) {
	t.Helper()
	if gotStatus, got := get(t, handler, path); gotStatus != status || got != body {
		t.Errorf("%s: %d %q, want %d %q", path, gotStatus, got, status, body)
	}
}

// TestHealth runs on a clock of its own.
func TestHealth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := probes.NewHealth("nothing was read back yet", time.Minute)
		handler := probes.Handler(h, probes.NewMetrics("ip_masq_test_", h))
		want(t, handler, "/readyz", 503, "nothing was read back yet\n")
		want(t, handler, "/livez", 200, "ok\n")
		h.Set(nil)
		want(t, handler, "/readyz", 200, "ok\n")
		h.Set(errors.New("bad config"))
		want(t, handler, "/readyz", 503, "bad config\n")
		time.Sleep(59 * time.Second)
		want(t, handler, "/healthz", 200, "ok\n")
		time.Sleep(2 * time.Second)
		want(t, handler, "/livez", 503, "the loop has not turned for 1m1s\n")
		h.Turned(2 * time.Minute)
		time.Sleep(119 * time.Second)
		want(t, handler, "/livez", 200, "ok\n")
		want(t, handler, "/other", 404, "404 page not found\n")
	})
}

// families are those of a program.
var families = probes.Families(
	probes.Family{"syncs_total", probes.Counter, []string{"result"}, "Syncs by result."},
	probes.Family{"sync_duration_seconds", probes.Histogram, nil, "How long a sync takes."},
	probes.Family{"absent", probes.Gauge, nil, "A metric without a value."},
	probes.Family{"config_info", probes.Gauge, []string{"hash", "path"}, "The config in force."},
)

// TestMetrics wants every family with its help and type, and the gauge to follow readiness.
func TestMetrics(t *testing.T) {
	t.Parallel()
	h := probes.NewHealth("not yet", time.Minute)
	m := probes.NewMetrics("ip_masq_test_", h, families...)
	m.Counter("syncs_total", "ok").Inc()
	m.Counter("syncs_total", "ok").Inc()
	m.Counter("syncs_total", "failed")
	m.Histogram("sync_duration_seconds", 0.01, 1).Update(0.5)
	hash := "a"
	m.OnScrape(func(s *probes.Scrape) { s.Set("config_info", 1, hash, "a \"b\\c\"\n") })
	const want = `# HELP ip_masq_test_build_info Always 1; the label has the version of the program.
# TYPE ip_masq_test_build_info gauge
ip_masq_test_build_info{version="VERSION"} 1
# HELP ip_masq_test_config_info The config in force.
# TYPE ip_masq_test_config_info gauge
ip_masq_test_config_info{hash="a",path="a \"b\\c\"\n"} 1
# HELP ip_masq_test_ready Whether /readyz answers 200.
# TYPE ip_masq_test_ready gauge
ip_masq_test_ready 0
# HELP ip_masq_test_sync_duration_seconds How long a sync takes.
# TYPE ip_masq_test_sync_duration_seconds histogram
ip_masq_test_sync_duration_seconds_bucket{le="0.01"} 0
ip_masq_test_sync_duration_seconds_bucket{le="1"} 1
ip_masq_test_sync_duration_seconds_bucket{le="+Inf"} 1
ip_masq_test_sync_duration_seconds_sum 0.5
ip_masq_test_sync_duration_seconds_count 1
# HELP ip_masq_test_syncs_total Syncs by result.
# TYPE ip_masq_test_syncs_total counter
ip_masq_test_syncs_total{result="failed"} 0
ip_masq_test_syncs_total{result="ok"} 2
`
	scrape := func() string {
		_, text := get(t, m, "/metrics")
		return strings.Replace(text, version.String(), "VERSION", 1)
	}
	if diff := cmp.Diff(want, scrape()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	h.Set(nil)
	hash = "b"
	changed := strings.NewReplacer("ready 0", "ready 1", `hash="a"`, `hash="b"`).Replace(want)
	if diff := cmp.Diff(changed, scrape()); diff != "" {
		t.Errorf("ready, with another config (-want +got)\n%s", diff)
	}
}

// TestUndescribed: no metric can be told that the reference does not have.
func TestUndescribed(t *testing.T) {
	t.Parallel()
	m := probes.NewMetrics("ip_masq_test_", probes.NewHealth("not yet", time.Minute), families...)
	for name, tell := range map[string]func(){
		"an unknown family": func() { m.Counter("others_total") },
		"another type":      func() { m.Counter("absent") },
		"too few labels":    func() { m.Counter("syncs_total") },
		"too many labels":   func() { m.Counter("syncs_total", "ok", "ok") },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			tell()
		})
	}
}

// TestServe listens, answers, and ends with its context; a second program is told that the address is taken.
func TestServe(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	listener, err := probes.Listen(ctx, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if second, err := probes.Listen(ctx, listener.Addr().String()); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("a second listener: %v, %v", second, err)
	}
	h := probes.NewHealth("not yet", time.Minute)
	ended := make(chan struct{})
	go func() {
		probes.Serve(ctx, listener, probes.Handler(h, probes.NewMetrics("ip_masq_test_", h)))
		close(ended)
	}()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+listener.Addr().String()+"/livez", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if string(body) != "ok\n" {
		t.Errorf("/livez: %q", body)
	}
	cancel()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("still serving after the end of the context")
	}
}
