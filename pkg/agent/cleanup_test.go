package agent_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// TestCleanupWarns: how many pods lose masquerading is on stderr before anything is removed.
func TestCleanupWarns(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		record(t, r.StateDir)
		r.Sync(t)
		release := lock(t, filepath.Join(r.StateDir, "lock"))
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
