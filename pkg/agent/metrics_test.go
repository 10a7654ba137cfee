package agent

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestMetrics: the gauge follows readiness.
func TestMetrics(t *testing.T) {
	h := newHealth()
	for _, test := range []struct {
		problem error
		want    string
	}{{errors.New("bad config"), "ip_masq_agent_ready 0"}, {nil, "ip_masq_agent_ready 1"}} {
		h.set(test.problem, time.Minute)
		w := httptest.NewRecorder()
		h.metrics(w, nil)
		if !strings.Contains(w.Body.String(), test.want+"\n") {
			t.Errorf("%v: got %q, want %q", test.problem, w.Body, test.want)
		}
	}
}
