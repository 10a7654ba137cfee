package agent_test

import (
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// TestRepairAfterTheLock: another process holds the node's lock for 12 seconds, and meanwhile the rules are deleted and other
// nftables objects change. The rules are back within a second after the lock is free.
func TestRepairAfterTheLock(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		netnstest.Require(t, "nft")
		record(t, r.StateDir)
		r.Write(t, never)
		agent := r.startReady(t)
		time.Sleep(time.Second) // what the start's own changes caused is over
		want := r.rules(t)
		release := netnstest.HoldLock(t, filepath.Join(r.StateDir, "lock"))
		r.destroy(t)
		if err := agent.Signal(syscall.SIGHUP); err != nil { // legacy rules change without an event
			t.Fatal(err)
		}
		for range 3 {
			time.Sleep(4 * time.Second)
			r.Run(t, "nft", "add table ip other; delete table ip other")
		}
		release()
		start := time.Now()
		r.eventually(t, agent, "repaired", func() bool { return r.rules(t) == want })
		if took := time.Since(start); took > netnstest.Limit(time.Second) {
			t.Errorf("repaired %s after the lock was free\n%s", took, agent.Output())
		}
		r.eventually(t, agent, "the repair in the log", func() bool {
			return strings.Contains(agent.Output(), `level=INFO msg="rules repaired after an external change"`)
		})
	})
}

// destroy deletes every rule of the agent's, with the chains or the table that has them, in one transaction: a repair may follow
// at any moment.
func (r *rig) destroy(t *testing.T) {
	t.Helper()
	if !r.IsIPTables() {
		r.Run(t, "nft", "delete table inet ip-masq-agent")
		return
	}
	r.Run(t, "sh", "-c", "printf '*nat\nCOMMIT\n' | iptables-restore -w")
}

// TestRepairBesideEvents: other software changes nftables all the time. Every one of several deletions is repaired within a
// second, and each is in the log with what was restored, no line twice in a row.
func TestRepairBesideEvents(t *testing.T) {
	reported := slices.DeleteFunc(testkit.Variants(), func(v testkit.Variant) bool { return !v.Events }) // others wait for the resync
	eachOf(t, reported, func(t *testing.T, r *rig) {
		record(t, r.StateDir)
		r.Write(t, never)
		agent := r.startReady(t)
		want := r.rules(t)
		r.Start(t, netnstest.Cmd{Args: []string{"sh", "-c", "while :; do nft 'add table ip other; delete table ip other'; sleep 0.05; done"}})
		for range 4 {
			r.destroy(t)
			start := time.Now()
			r.eventually(t, agent, "repaired", func() bool { return r.rules(t) == want })
			if took := time.Since(start); took > netnstest.Limit(time.Second) {
				t.Errorf("repaired after %s\n%s", took, agent.Output())
			}
			time.Sleep(300 * time.Millisecond)
		}
		var last string
		for line := range strings.Lines(agent.Output()) {
			_, text, _ := strings.Cut(line, " ") // without the time
			if text == last {
				t.Errorf("twice in a row: %s", text)
			}
			last = text
		}
		if repairs := strings.Count(agent.Output(), "rules repaired after an external change"); repairs < 4 || strings.Contains(agent.Output(), "restored=[]") {
			t.Errorf("%d of 4 repairs in the log:\n%s", repairs, agent.Output())
		}
	})
}

// TestRestartFindsRules: the log of a daemon that has nothing to do says so, with the number of pods.
func TestRestartFindsRules(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		record(t, r.StateDir)
		for _, says := range []string{"rules put in place", "rules found in place"} {
			agent := r.startReady(t)
			agent.Stop(syscall.SIGTERM, patience)
			if log := agent.Output(); !strings.Contains(log, `level=INFO msg="`+says+`"`) || !strings.Contains(log, " pods=3 ") {
				t.Errorf("want %q and three pods in the log:\n%s", says, log)
			}
		}
	})
}

// TestLogLevels starts once per level and format.
func TestLogLevels(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.Write(t, often)
		for _, c := range []struct{ flags, has, not string }{
			{"-v=0", "level=INFO", "level=DEBUG"},
			{"-v=2", "level=DEBUG msg=synced reason=", "changed=false"},
			{"--v=4", "changed=false", "reports a change"},
			{"--log-format=json", `"level":"INFO","msg":"starting"`, "level=INFO"},
		} {
			agent := r.startReady(t, c.flags)
			time.Sleep(500 * time.Millisecond)
			r.destroy(t)
			time.Sleep(time.Second)
			agent.Stop(syscall.SIGTERM, patience)
			if log := agent.Output(); !strings.Contains(log, c.has) || strings.Contains(log, c.not) {
				t.Errorf("%s: want %q and not %q in the log:\n%s", c.flags, c.has, c.not, log)
			}
		}
	})
}
