package e2e

import (
	"os"
	"path/filepath"
	"testing"
)

// TestSteadyAgentNotices: an agent that found nothing to do several times, and may remember that, takes up what then changes
// outside the kernel's rules, which no notification reports, at its next resync.
func TestSteadyAgentNotices(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		overwrite(t, filepath.Join(r.ConfDir, "10-pods.conflist"), conflist(network, plain))
		r.Write(t, "resyncInterval: 300ms\n")
		kept, dying := r.attached(t, "kept"), r.attached(t, "dying")
		r.cache(t, kept)
		late := r.newPod(t, "late")
		late.Network = "later"
		overwrite(t, filepath.Join(r.ConfDir, "20-later.conflist"), conflist("later", ""))
		r.cache(t, late)
		agent := r.startReady(t)
		persisted := filepath.Join(r.DataDir, "policy.json")
		for _, c := range []struct {
			name   string
			change func()
			then   func() bool
		}{
			{"a lost record", func() { _ = os.Remove(r.record(kept)) }, func() bool { return r.hasRecord(kept) }},
			{"a lost policy", func() { _ = os.Remove(persisted) }, func() bool { return exists(persisted) }},
			{"a namespace that is gone", dying.Remove, func() bool { return !r.hasRecord(dying) && !r.hasRule(t, dying) }},
			{"our entry in another conflist", func() {
				overwrite(t, filepath.Join(r.ConfDir, "20-later.conflist"), conflist("later", plain))
			}, func() bool { return r.hasRecord(late) && r.hasRule(t, late) }},
		} {
			r.quiesce(t)
			c.change()
			r.eventually(t, agent, c.name, c.then)
		}
		r.wantSeen(t, kept, nodeAddress)
		r.wantSeen(t, late, nodeAddress)
	})
}
