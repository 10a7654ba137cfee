package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// reply is how a run ended. err is the error result, nil after success.
type reply struct {
	netnstest.Result
	took time.Duration
	err  *errorResult
}

type errorResult struct {
	CNIVersion string
	Code       uint
	Msg        string
	Details    string
}

// do runs the plugin and holds it to what is true of every run: one document or none on stdout (A1), an error with version,
// code and one line of text (A4), and the bound on time (A8).
func (h *host) do(t *testing.T, r *request) reply {
	t.Helper()
	return h.all(t, r)[0]
}

// all is do for several requests at once.
func (h *host) all(t *testing.T, requests ...*request) []reply {
	t.Helper()
	replies := make([]reply, len(requests))
	errs := make([]error, len(requests))
	var wg sync.WaitGroup
	for i, r := range requests {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 4*bound)
			defer cancel()
			c, start := r.command(h), time.Now()
			replies[i].Result, errs[i] = h.Exec(ctx, c)
			replies[i].took = time.Since(start)
		})
	}
	wg.Wait()
	for i, r := range requests {
		verb := r.env["CNI_COMMAND"]
		if errs[i] != nil {
			t.Fatalf("%s: %v\n%+v", verb, errs[i], replies[i].Result)
		}
		if replies[i].took > bound {
			t.Errorf("%s took %v", verb, replies[i].took)
		}
		replies[i].decode(t, verb)
	}
	return replies
}

// count is do under strace, with the number of processes that the plugin started.
func (h *host) count(t *testing.T, r *request) (int, reply) {
	t.Helper()
	n, result := netnstest.CountExec(t, h.Space, r.command(h))
	got := reply{Result: result}
	got.decode(t, r.env["CNI_COMMAND"])
	return n, got
}

func (r *reply) decode(t *testing.T, verb string) {
	t.Helper()
	if r.Code == 0 {
		if printed := r.Stdout != ""; printed != (verb == "ADD" || verb == "VERSION") || (printed && documents(r.Stdout) != 1) {
			t.Fatalf("%s succeeded and printed %q", verb, r.Stdout)
		}
		return
	}
	r.err = &errorResult{}
	if err := json.Unmarshal([]byte(r.Stdout), r.err); err != nil || documents(r.Stdout) != 1 {
		t.Fatalf("%s: exit %d, stdout %q, stderr %q", verb, r.Code, r.Stdout, r.Stderr)
	}
	// 999 is the library's code for an error that nobody gave one (A5).
	if r.err.CNIVersion == "" || r.err.Code == 0 || r.err.Code == 999 || r.err.Msg == "" || strings.Contains(r.err.Msg, "\n") {
		t.Errorf("%s: incomplete error %+v", verb, *r.err)
	}
}

// documents counts JSON documents, -1 for text that is none.
func documents(text string) int {
	decoder := json.NewDecoder(strings.NewReader(text))
	for n := 0; ; n++ {
		var document any
		if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
			return n
		} else if err != nil {
			return -1
		}
	}
}

// want fails the test unless the run ended with this code; 0 is success.
func (r reply) want(t *testing.T, code uint) reply {
	t.Helper()
	if r.code() != code {
		t.Errorf("code %d, want %d: %+v\n%s", r.code(), code, r.err, r.Stderr)
	}
	return r
}

func (r reply) code() uint {
	if r.err == nil {
		return 0
	}
	return r.err.Code
}
