package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// cnitool calls a verb on a real conflist, with the plugins under test before those of the machine.
func (r *rig) cnitool(t *testing.T, verb string, p *netnstest.Pod) {
	t.Helper()
	root, err := netnstest.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	if got := r.CNI(t, verb, network, p.Path, "CNI_PATH="+testkit.Built()+":"+filepath.Join(root, "bin", "tools")); got.Code != 0 {
		t.Fatalf("%s: %s%s", verb, got.Stdout, got.Stderr)
	}
}

// TestAdoptsPodsFromBefore: pods that were attached without us, by the real library, are behind the chain as soon as their
// conflist has our entry and the agent is up, and their DEL takes them out.
func TestAdoptsPodsFromBefore(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		netnstest.Require(t, "cnitool", "bridge", "host-local")
		r.Write(t, "resyncInterval: 500ms\n")
		r.Conflist(t, []byte(conflist(network, "")), nil)
		pods := []*netnstest.Pod{r.NewPod(t, "a"), r.NewPod(t, "b")}
		for _, p := range pods {
			r.cnitool(t, "add", p)
			if got := seenAs(p, r.Internet.IPv4); !strings.HasPrefix(got, "10.245.0.") {
				t.Fatalf("before: seen as %s", got)
			}
		}
		agent := r.startReady(t)
		if got := r.status(t); len(got.Pods.Attached) != 0 {
			t.Errorf("adopted from a network that is not ours: %+v", got.Pods.Attached)
		}
		r.Conflist(t, []byte(conflist(network, plain)), map[string]any{"backend": r.Choice})
		r.eventually(t, agent, "both are masqueraded", func() bool {
			return seenAs(pods[0], r.Internet.IPv4) == nodeAddress && seenAs(pods[1], r.Internet.IPv4) == nodeAddress
		})
		r.cnitool(t, "del", pods[0])
		r.eventually(t, agent, "one is left", func() bool { return len(r.status(t).Pods.Attached) == 1 })
		if got := seenAs(pods[1], r.Internet.IPv4); got != nodeAddress {
			t.Errorf("the other is seen as %s", got)
		}
	})
}

// TestLostRecordsComeBack: without an interruption, since the rules stay meanwhile.
func TestLostRecordsComeBack(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		overwrite(t, filepath.Join(r.ConfDir, "10-pods.conflist"), conflist(network, plain))
		pods := []*pod{r.attached(t, "a"), r.attached(t, "b")}
		for _, p := range pods {
			r.cache(t, p)
		}
		r.Sync(t)
		want := r.standing(t)
		for _, p := range pods {
			if err := os.Remove(r.record(p)); err != nil {
				t.Fatal(err)
			}
		}
		overwrite(t, r.record(pods[1]), "{") // a record that cannot be read is as good as lost
		r.Sync(t)
		for _, p := range pods {
			if !r.hasRecord(p) || !strings.Contains(read(t, r.record(p)), p.Addrs[0].String()) {
				t.Errorf("the record of %s did not come back", p.ContainerID)
			}
		}
		if got := r.standing(t); got != want {
			t.Errorf("rules changed:\n%swant\n%s", got, want)
		}
	})
}

// TestDropsLeaks: a pod that died without a DEL goes, with its record and without; its neighbour stays.
func TestDropsLeaks(t *testing.T) {
	for name, leak := range map[string]func(t *testing.T, r *rig, p *pod){
		"namespace gone": func(_ *testing.T, _ *rig, p *pod) { p.Remove() },
		"namespace gone, and the runtime's entry is still there": func(t *testing.T, r *rig, p *pod) {
			r.cache(t, p)
			p.Remove()
		},
		"namespace and record gone, entry still there": func(t *testing.T, r *rig, p *pod) {
			r.cache(t, p)
			p.Remove()
			_ = os.Remove(r.record(p))
		},
		"record gone, no entry": func(_ *testing.T, r *rig, p *pod) { _ = os.Remove(r.record(p)) },
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, r *rig) {
				overwrite(t, filepath.Join(r.ConfDir, "10-pods.conflist"), conflist(network, plain))
				dead, alive := r.attached(t, "dead"), r.attached(t, "alive")
				r.cache(t, alive)
				leak(t, r, dead)
				r.Sync(t)
				if r.hasRecord(dead) || r.hasRule(t, dead) {
					t.Errorf("still there: record %v\n%s", r.hasRecord(dead), r.standing(t))
				}
				r.wantSeen(t, alive, nodeAddress)
			})
		})
	}
}

// TestIsNoLeak: what only looks like a leak keeps its rule.
func TestIsNoLeak(t *testing.T) {
	for name, look := range map[string]func(t *testing.T, r *rig, p *pod){
		"an ADD in flight has no entry yet": func(*testing.T, *rig, *pod) {},
		"no cache, no record": func(t *testing.T, r *rig, p *pod) {
			_ = os.Remove(r.record(p))
			if err := os.RemoveAll(filepath.Join(r.CacheDir, "results")); err != nil {
				t.Fatal(err)
			}
		},
		"no record, and an entry that is half written": func(t *testing.T, r *rig, p *pod) {
			_ = os.Remove(r.record(p))
			path := r.cache(t, p)
			overwrite(t, path, read(t, path)[:100])
		},
		"no record, and an entry that is empty": func(t *testing.T, r *rig, p *pod) {
			_ = os.Remove(r.record(p))
			r.cacheText(t, p.Owner, "")
		},
		"no record, and an entry of a network whose conflist is gone": func(t *testing.T, r *rig, p *pod) {
			_ = os.Remove(r.record(p))
			r.cache(t, p)
			_ = os.Remove(filepath.Join(r.ConfDir, "10-pods.conflist"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, r *rig) {
				overwrite(t, filepath.Join(r.ConfDir, "10-pods.conflist"), conflist(network, plain))
				r.cacheText(t, attachment.Owner{Network: network, ContainerID: "another", IfName: "eth0"}, "{}")
				p := r.attached(t, "a")
				look(t, r, p)
				r.Sync(t)
				r.Sync(t)
				if !r.hasRule(t, p) {
					t.Errorf("lost its rule:\n%s", r.standing(t))
				}
				r.wantSeen(t, p, nodeAddress)
			})
		})
	}
}
