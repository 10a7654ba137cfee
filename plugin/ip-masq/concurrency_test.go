package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// crowd is how many pods a node starts at once after a drain.
var crowd = netnstest.Crowd(50)

// rounds is how often a race gets its chance.
func rounds() int {
	if testing.Short() {
		return 3
	}
	return 10
}

// together runs requests at once that have to succeed.
func (h *host) together(t *testing.T, requests ...*request) {
	t.Helper()
	for i, got := range h.all(t, requests...) {
		if got.err != nil {
			t.Errorf("%s of %s: %+v\n%s", requests[i].env["CNI_COMMAND"], requests[i].env["CNI_CONTAINERID"], *got.err, got.Stderr)
		}
	}
}

// member is pod i of the crowd.
func member(i int) (container, ipv4, ipv6 string) {
	return fmt.Sprintf("pod%03d", i), fmt.Sprintf("10.1.%d.%d", i/200, i%200+2), fmt.Sprintf("fd00:1::%x", i+2)
}

func (h *host) crowd(verb string, from, to int, ipv6 bool) (requests []*request) {
	for i := from; i < to; i++ {
		container, address4, address6 := member(i)
		r := h.request(verb, container, address4)
		if ipv6 {
			r = h.request(verb, container, address4, address6).set("enableIPv6", true)
		}
		requests = append(requests, r)
	}
	return requests
}

func crowdLines(from, to int) (ipv4, ipv6 []string) {
	for i := from; i < to; i++ {
		container, address4, address6 := member(i)
		ipv4 = append(ipv4, podLine(address4, container))
		ipv6 = append(ipv6, podLine(address6, container))
	}
	return ipv4, ipv6
}

// TestCrowd is A21: fifty ADDs on a fresh host, then fifty DELs. The first round has both families.
func TestCrowd(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant) {
		for round := range rounds() {
			h := newHost(t, v)
			ipv6 := round == 0
			h.together(t, h.crowd("ADD", 0, crowd, ipv6)...)
			pods4, pods6 := crowdLines(0, crowd)
			h.wantTable(t, policy.IPv4, h.defaultTable(policy.IPv4, pods4...))
			if ipv6 {
				h.wantTable(t, policy.IPv6, h.defaultTable(policy.IPv6, pods6...))
			}
			h.together(t, h.crowd("DEL", 0, crowd, ipv6)...)
			h.wantPods(t)
		}
	})
}

// TestCrowdComesAndGoes mixes ADDs, repeated ADDs and DELs.
func TestCrowdComesAndGoes(t *testing.T) {
	some := 2 * netnstest.Crowd(10)
	eachVariant(t, func(t *testing.T, v variant) {
		h := newHost(t, v)
		h.together(t, h.crowd("ADD", 0, 2*some, false)...)
		for range rounds() / 3 {
			requests := append(h.crowd("DEL", 0, some, false), h.crowd("ADD", 2*some, 3*some, false)...)
			h.together(t, append(requests, h.crowd("ADD", some, some+some/2, false)...)...)
			want, _ := crowdLines(some, 3*some)
			h.wantPods(t, want...)
			h.together(t, append(h.crowd("DEL", 2*some, 3*some, false), h.crowd("ADD", 0, some, false)...)...)
			want, _ = crowdLines(0, 2*some)
			h.wantPods(t, want...)
		}
	})
}

// TestCrowdWhileAgentSyncs: two hundred ADDs, twenty at once, while the agent rewrites the shared chain all the time, which is at no moment
// missing or empty. In an emulator as many turns have fewer each. Where the agent hardly gets a turn, there are more.
func TestCrowdWhileAgentSyncs(t *testing.T) {
	const syncs, readings = 3, 20
	at := netnstest.Crowd(20)
	pods := 10 * at
	eachVariant(t, func(t *testing.T, v variant) {
		h := newHost(t, v)
		h.sync(t, "")
		stop := make(chan struct{})
		var agent, reader background
		agent.start(stop, func(n int) error { return h.trySync(n) })
		if v.IsIPTables() {
			reader.start(stop, func(int) error { return h.chainStands() })
		}
		added := 0
		for ; added < pods || added < 4*pods && (agent.runs.Load() < syncs || v.IsIPTables() && reader.runs.Load() < readings); added += at {
			h.together(t, h.crowd("ADD", added, added+at, false)...)
		}
		close(stop)
		agent.want(t, "sync", syncs)
		if v.IsIPTables() {
			reader.want(t, "reading the shared chain", readings)
		}
		h.sync(t, "", "--random-fully=true") // without the flag, the persisted setting counts
		want, _ := crowdLines(0, added)
		h.wantPods(t, want...)
	})
}

// trySync alternates between two policies, so that there is something to rewrite every time.
func (h *host) trySync(n int) error {
	file := filepath.Join(filepath.Dir(h.stateDir), "config")
	if n%2 == 0 {
		file = "/dev/null" // the defaults
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*bound)
	defer cancel()
	r, err := h.Exec(ctx, netnstest.Cmd{Args: append(h.syncArgs(file), "--enable-ipv6=false", fmt.Sprintf("--random-fully=%t", n%2 == 0))})
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("exit %d: %s", r.Code, r.Stderr)
	}
	return err
}

// chainStands is what another program sees of the shared chain.
func (h *host) chainStands() error {
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	r, err := h.Exec(ctx, netnstest.Cmd{Args: []string{h.iptables(policy.IPv4), "-w", "-t", "nat", "-S", chain}})
	if err == nil && (r.Code != 0 || strings.Count(r.Stdout, "-A ") != 5) {
		err = fmt.Errorf("exit %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	return err
}

// background repeats something until stop is closed, and remembers how often and the first error.
type background struct {
	done chan struct{}
	runs atomic.Int64
	err  error
}

func (b *background) start(stop <-chan struct{}, do func(n int) error) {
	b.done = make(chan struct{})
	go func() {
		defer close(b.done)
		for ; b.err == nil; b.runs.Add(1) {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				b.err = do(int(b.runs.Load()))
			}
		}
	}()
}

// want fails the test for an error, and when there were too few runs to prove anything.
func (b *background) want(t *testing.T, what string, runs int64) {
	t.Helper()
	<-b.done
	if n := b.runs.Load(); b.err != nil || n < runs {
		t.Errorf("%s: %d runs, want at least %d: %v", what, n, runs, b.err)
	}
}
