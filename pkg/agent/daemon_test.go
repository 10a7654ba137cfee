package agent_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// patience is for what has to happen at all; a loaded machine may take a while.
var patience = netnstest.Limit(10 * time.Second)

// often is a short interval between resyncs, never a resync that a test will wait for.
const (
	often = "resyncInterval: 200ms\n"
	never = "resyncInterval: 1h\n"
)

// start runs the daemon until the test ends.
func (r *rig) start(t *testing.T, args ...string) *netnstest.Process {
	t.Helper()
	return r.Start(t, netnstest.Cmd{Args: r.Command("run", args...)})
}

// startReady runs the daemon and waits for its rules.
func (r *rig) startReady(t *testing.T, args ...string) *netnstest.Process {
	t.Helper()
	agent := r.start(t, args...)
	r.waitReady(t, agent)
	return agent
}

func (r *rig) waitReady(t *testing.T, agent *netnstest.Process) {
	t.Helper()
	r.eventually(t, agent, "ready", func() bool { status, _ := r.Probe("/readyz"); return status == http.StatusOK })
}

// waitUnready waits for a 503 whose body has the reason.
func (r *rig) waitUnready(t *testing.T, agent *netnstest.Process, reason string) {
	t.Helper()
	r.eventually(t, agent, "not ready because of "+reason, func() bool {
		status, body := r.Probe("/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, reason)
	})
}

// eventually is netnstest.Eventually that shows the agent's log when it fails.
func (r *rig) eventually(t *testing.T, agent *netnstest.Process, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			status, body := r.Probe("/readyz")
			t.Fatalf("not within %s: %s\n/readyz: %d %s\n%s\n%s", patience, what, status, body, r.rules(t), agent.Output())
		}
	}
}

// TestDaemonReloads changes the file in every way that files change; no resync is due meanwhile.
func TestDaemonReloads(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.Write(t, never)
		agent := r.startReady(t)
		t.Run("rename", func(t *testing.T) {
			r.reloads(t, agent, func(content string) { r.Write(t, content) })
		})
		t.Run("in place", func(t *testing.T) {
			r.reloads(t, agent, func(content string) { overwrite(t, r.Config, content) })
		})
		t.Run("removed", func(t *testing.T) {
			if err := os.Remove(r.Config); err != nil {
				t.Fatal(err)
			}
			r.waitUnready(t, agent, r.Config+": cannot be read: no such file")
			if got := r.rules(t); strings.Contains(got, "172.16.0.0/12") {
				t.Errorf("the last good policy did not stay:\n%s", got)
			}
			r.Write(t, never)
			r.waitReady(t, agent)
			r.eventually(t, agent, "the defaults", func() bool { return strings.Contains(r.rules(t), "172.16.0.0/12") })
		})
	})
}

func TestDaemonReloadsConfigMap(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		config := netnstest.NewConfigMap(t, "config", never)
		agent := r.startReady(t, "--config", config.Path)
		r.reloads(t, agent, func(content string) { config.Update(t, content) })
	})
}

func TestDaemonReloadsDirectory(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		dir := t.TempDir()
		overwrite(t, filepath.Join(dir, "ip-masq-interval"), never)
		agent := r.startReady(t, "--config", dir)
		r.reloads(t, agent, func(content string) { overwrite(t, filepath.Join(dir, "ip-masq-list"), content) })
		if got := r.rules(t); strings.Contains(got, "172.16.0.0/12") {
			t.Errorf("the defaults beside a list:\n%s", got)
		}
	})
}

// reloads fails unless one of three changes is in the kernel within a second: a loaded machine may delay one, not all of them.
func (r *rig) reloads(t *testing.T, agent *netnstest.Process, change func(content string)) {
	t.Helper()
	best := time.Hour
	for i := 1; i <= 3 && best > netnstest.Limit(time.Second); i++ {
		cidr := fmt.Sprintf("10.%d.%d.0/24", i, rand.IntN(256)) // not what an earlier change has put in force
		start := time.Now()
		change(never + "nonMasqueradeCIDRs: [" + cidr + "]\n")
		r.eventually(t, agent, cidr, func() bool { return strings.Contains(r.rules(t), cidr) })
		best = min(best, time.Since(start))
	}
	if best > netnstest.Limit(time.Second) {
		t.Errorf("the quickest of three changes took %s", best)
	}
}

func overwrite(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestDaemonObeysSIGHUP(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.Write(t, never)
		agent := r.startReady(t)
		before := r.rules(t)
		r.Try(t, r.flush...)
		if err := agent.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		r.eventually(t, agent, "the rules again", func() bool { return r.rules(t) == before })
	})
}

func TestDaemonEndsOnSIGTERM(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		agent := r.startReady(t)
		before := r.rules(t)
		start := time.Now()
		if code := agent.Stop(syscall.SIGTERM, patience); code != 0 || time.Since(start) > netnstest.Limit(5*time.Second) {
			t.Errorf("exit %d after %s\n%s", code, time.Since(start), agent.Output())
		}
		if after := r.rules(t); after != before || before == "" {
			t.Errorf("the rules did not stay:\n%s", after)
		}
	})
}

func TestDaemonIsAlone(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		first := r.startReady(t)
		start := time.Now()
		got := r.Agent(t, "run", "--metrics-bind-address=")
		if took := time.Since(start); got.Code != 1 || took > netnstest.Limit(2*time.Second) {
			t.Errorf("exit %d after %s", got.Code, took)
		}
		if !strings.Contains(got.Stderr, "held by process "+strconv.Itoa(first.Pid)+" (ip-masq-agent)") || strings.Count(got.Stderr, "\n") != 1 {
			t.Errorf("want one line that names process %d:\n%s", first.Pid, got.Stderr)
		}
		first.Stop(syscall.SIGKILL, patience)
		r.Try(t, r.flush...)
		second := r.startReady(t)
		if got := r.rules(t); !strings.Contains(got, "10.0.0.0/8") {
			t.Errorf("after kill -9 and a new start:\n%s\n%s", got, second.Output())
		}
	})
}
