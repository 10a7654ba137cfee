package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// steps are the system calls that change something, or wait for who does. What lies between two of them changes nothing, so
// dying at the entry of each is dying everywhere. Those of iptables itself are its commits.
var steps = []string{"mkdirat", "flock", "write", "fchmod", "/rename", "unlinkat", "clone", "execve", "waitid", "sendmsg", "setsockopt", "exit_group"}

// killed runs a request under strace, which kills whoever enters the step for the nth time. It reports whether a process died.
func (h *host) killed(t *testing.T, r *request, step string, n int) bool {
	t.Helper()
	trace := filepath.Join(t.TempDir(), "trace")
	c := r.command(h)
	c.Args = append([]string{
		"strace", "-f", "-qq", "-o", trace, "-e", "trace=" + step, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", step, n), "--",
	}, c.Args...)
	c.Env = append(c.Env, "GOMAXPROCS=1") // strace counts by thread
	h.exec(t, c)
	return strings.Contains(string(readFile(t, trace)), "killed by SIGKILL")
}

// remedy is what comes after a death. After a resync there is a pod or not, depending on how far the dead one came.
type remedy struct {
	name string
	run  func(t *testing.T, h *host)
	pod  func(recorded bool) bool
}

var remedies = []remedy{
	{"DEL", func(t *testing.T, h *host) { h.del(t, "a") }, func(bool) bool { return false }},
	{"ADD", func(t *testing.T, h *host) { h.add(t, "a", "10.1.0.2") }, func(bool) bool { return true }},
	{"sync", func(t *testing.T, h *host) { h.sync(t, "") }, func(recorded bool) bool { return recorded }},
}

// scenario is what a plugin was about when it died.
type scenario struct {
	name   string
	before []string // pods that are attached by then
	verb   string
	least  int // deaths, or the test tests nothing
}

// TestKill dies at every step, and looks whether each remedy leads to the exact state.
func TestKill(t *testing.T) {
	scenarios := []scenario{
		{"first ADD", nil, "ADD", 40},
		{"steady ADD", []string{"b"}, "ADD", 30},
		{"repeated ADD", []string{"b", "a"}, "ADD", 30},
		{"DEL", []string{"b", "a"}, "DEL", 24},
	}
	eachVariant(t, func(t *testing.T, v variant) {
		netnstest.Require(t, "strace")
		h := newHost(t, v)
		for _, s := range scenarios {
			t.Run(s.name, func(t *testing.T) {
				deaths := 0
				for _, step := range steps {
					deaths += h.dieAt(t, s, step, deaths)
				}
				if testing.Short() {
					s.least /= 2 * len(remedies)
				}
				s.least = max(4, s.least/between)
				if deaths < s.least {
					t.Errorf("%d deaths, want at least %d", deaths, s.least)
				}
			})
		}
	})
}

// between is from one occurrence of a step at which the plugin dies to the next: in an emulator, where each death takes a second, every
// seventh.
var between = map[bool]int{true: 7, false: 1}[netnstest.Emulated()]

// dieAt dies at a step's first occurrence, its second and so on, until one survives, and once with each remedy. In short tests
// each death gets one remedy, in turn.
func (h *host) dieAt(t *testing.T, s scenario, step string, turn int) (deaths int) {
	t.Helper()
	for n := 1; n < 20; n += between {
		for i, remedy := range remedies {
			if testing.Short() && i != (turn+n/between)%len(remedies) {
				continue
			}
			h.prepare(t, s.before)
			if !h.killed(t, h.request(s.verb, "a", addressOf["a"]), step, n) {
				return deaths
			}
			deaths++
			h.remedy(t, remedy, fmt.Sprintf("%s killed at %s %d", s.verb, step, n), slices.Contains(s.before, "b"))
		}
	}
	return deaths
}

// prepare makes a fresh host of this one and attaches the pods.
func (h *host) prepare(t *testing.T, pods []string) {
	t.Helper()
	if h.IsIPTables() {
		h.Run(t, "sh", "-ec", "echo '*nat\nCOMMIT' | iptables-restore -w") // without --noflush
	} else {
		h.must(t, h.gc("cni.dev/valid-attachments", "null"))
	}
	if err := os.RemoveAll(h.stateDir); err != nil {
		t.Fatal(err)
	}
	for _, container := range pods {
		h.add(t, container, addressOf[container])
	}
}

// remedy applies one and compares rules and records.
func (h *host) remedy(t *testing.T, r remedy, what string, withB bool) {
	t.Helper()
	recorded := slices.Contains(h.records(t), podLine(addressOf["a"], "a"))
	r.run(t, h)
	var want []string
	if r.pod(recorded) {
		want = append(want, podLine(addressOf["a"], "a"))
	}
	if withB {
		want = append(want, podLine(addressOf["b"], "b"))
	}
	h.wantExact(t, what+", then "+r.name, want)
}

var addressOf = map[string]string{"a": "10.1.0.2", "b": "10.1.0.3"}

// wantExact compares rules with records with what they should be. Without a pod there may be nothing at all, but nothing half.
func (h *host) wantExact(t *testing.T, what string, pods []string) {
	t.Helper()
	slices.Sort(pods)
	want := h.defaultTable(policy.IPv4, pods...)
	got := h.observe(t, policy.IPv4)
	if len(pods) == 0 && got.Roots == 0 {
		want = table{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: rules, -want +got:\n%s", what, diff)
	}
	if diff := cmp.Diff(want.Pods, h.records(t)); diff != "" {
		t.Errorf("%s: records, -want +got:\n%s", what, diff)
	}
}

// TestKillAtAnyTime needs no idea of where the steps are: it kills plugin and iptables after ever longer times, until one
// survives.
func TestKillAtAnyTime(t *testing.T) {
	pause := 700 * time.Microsecond
	if netnstest.Emulated() {
		pause *= 10 // not netnstest.Limit: that is longer in CI too, where the plugin takes no longer
	}
	eachVariant(t, func(t *testing.T, v variant) {
		for i, verb := range []string{"ADD", "DEL"} {
			h := newHost(t, v)
			h.add(t, "b", addressOf["b"])
			deaths := 0
			for after := time.Duration(0); after < 200*pause; after += pause {
				if verb == "DEL" {
					h.add(t, "a", addressOf["a"])
				}
				survived := h.killAfter(t, h.request(verb, "a", addressOf["a"]), after)
				h.remedy(t, remedies[(deaths+i)%len(remedies)], fmt.Sprintf("%s killed after %v", verb, after), true)
				if survived || t.Failed() {
					break
				}
				deaths++
				h.del(t, "a")
			}
			if deaths < 3 {
				t.Errorf("%s: %d deaths prove nothing", verb, deaths)
			}
		}
	})
}

// killAfter reports whether the plugin was done before it was killed.
func (h *host) killAfter(t *testing.T, r *request, after time.Duration) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), after+time.Nanosecond)
	defer cancel()
	_, err := h.Exec(ctx, r.command(h))
	return err == nil
}

// TestKilledAboveItsProgram: the plugin is killed while its iptables-restore still waits, for a lock say. That must not write
// later on, behind the back of the DEL that follows.
func TestKilledAboveItsProgram(t *testing.T) {
	eachIPTables(t, func(t *testing.T, v variant) {
		h := newHost(t, v)
		h.add(t, "b", addressOf["b"])
		slow := *h
		started := filepath.Join(t.TempDir(), "started")
		slow.Space = &netnstest.Space{}
		*slow.Space = *h.Space
		slow.wrap(t, "touch "+started+`; sleep 0.5; exec "$REAL" "$@"`)
		p := slow.Start(t, slow.request("ADD", "a", addressOf["a"]).command(&slow))
		netnstest.Eventually(t, bound, "iptables-restore to run", func() bool {
			_, err := os.Stat(started)
			return err == nil
		})
		p.Stop(syscall.SIGKILL, time.Second)
		h.del(t, "a")
		time.Sleep(time.Second)
		h.wantPods(t, podLine(addressOf["b"], "b"))
	})
}
