package agent_test

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// TestCleanupWarns: how many pods lose masquerading is on stderr before anything is removed.
func TestCleanupWarns(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		record(t, r.StateDir)
		r.Sync(t)
		release := netnstest.HoldLock(t, filepath.Join(r.StateDir, "lock"))
		cleanup := r.Start(t, netnstest.Cmd{Args: r.Command("cleanup")})
		r.eventually(t, cleanup, "the number of pods on stderr", func() bool {
			return strings.Contains(cleanup.Output(), "attached pods that lose masquerading: 3")
		})
		if r.rules(t) == "" {
			t.Error("the rules went before the warning")
		}
		release()
		r.eventually(t, cleanup, "rules removed", func() bool { return r.rules(t) == "" })
	})
}

// TestCleanupDryRun prints what cleanup would remove, and touches nothing, with and without a daemon.
func TestCleanupDryRun(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		record(t, r.StateDir)
		agent := r.startReady(t)
		rules, persisted := r.rules(t), r.persisted(t)
		got := r.Agent(t, "cleanup", "--dry-run")
		for _, part := range []string{"IP-MASQ-AGENT", filepath.Join(r.DataDir, "policy.json"), filepath.Join(r.StateDir, "attachments")} {
			if !strings.Contains(got.Stdout, part) {
				t.Errorf("want %s in\n%s", part, got.Stdout)
			}
		}
		if got.Code != 0 || !strings.Contains(got.Stderr, "attached pods that would lose masquerading: 3") {
			t.Errorf("exit %d\n%s", got.Code, got.Stderr)
		}
		if r.rules(t) != rules || r.persisted(t) != persisted {
			t.Errorf("rules or persisted policy changed:\n%s\n%s", r.rules(t), r.persisted(t))
		}
		agent.Stop(syscall.SIGTERM, patience)
		r.Agent(t, "cleanup")
		if got := r.Agent(t, "cleanup", "--dry-run"); got.Code != 0 || got.Stdout != "" || got.Stderr != "" {
			t.Errorf("after a cleanup there is something left: %+v", got)
		}
	})
}
