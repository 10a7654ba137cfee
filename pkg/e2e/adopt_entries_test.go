package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
)

// entries are what a runtime's cache may hold of a living pod, and whether that makes the pod ours.
var entries = []struct {
	name    string
	entry   string // ours in the conflist, plain where it is empty, none for "-"
	adopted bool
	write   func(t *testing.T, r *rig, p *pod)
}{
	{"the format since libcni 0.7", "", true, func(t *testing.T, r *rig, p *pod) { r.cache(t, p) }},
	{"the format before", "", true, func(t *testing.T, r *rig, p *pod) { r.cacheText(t, p.Owner, p.result()) }},
	{"a network without us", "-", false, func(t *testing.T, r *rig, p *pod) { r.cache(t, p) }},
	{"another network", "", false, func(t *testing.T, r *rig, p *pod) {
		p.Network = "others"
		r.cache(t, p)
	}},
	{"another network, the format before", "", false, func(t *testing.T, r *rig, p *pod) {
		p.Network = "others"
		r.cacheText(t, p.Owner, p.result())
	}},
	{"a network that opted out", `{"type": "ip-masq", "masquerade": false}`, false, func(t *testing.T, r *rig, p *pod) { r.cache(t, p) }},
	{"a pod that opted out", "", false, func(t *testing.T, r *rig, p *pod) {
		r.cache(t, p, `"capabilityArgs": {"io.kubernetes.cri.pod-annotations": {"ip-masq-agent/masquerade": "false"}}`)
	}},
	{"a pod with another annotation", "", true, func(t *testing.T, r *rig, p *pod) {
		r.cache(t, p, `"capabilityArgs": {"io.kubernetes.cri.pod-annotations": {"ip-masq-agent/masquerade": "true", "x": "y"}, "portMappings": [{"hostPort": 80}]}`)
	}},
	{"a namespace that is gone", "", false, func(t *testing.T, r *rig, p *pod) {
		r.cacheText(t, p.Owner, strings.ReplaceAll(read(t, r.cache(t, p)), p.Path, p.Path+"-gone"))
	}},
	{"no namespace", "", false, func(t *testing.T, r *rig, p *pod) {
		r.cacheText(t, p.Owner, strings.ReplaceAll(read(t, r.cache(t, p)), p.Path, ""))
	}},
	{"a pod whose DEL just ran", "", false, func(t *testing.T, r *rig, p *pod) {
		r.add(t, p)
		r.cache(t, p)
		if got := r.plugin(t, "DEL", p); got.Code != 0 {
			t.Fatal(got.Stdout)
		}
	}},
	{"a pod that was deleted and added again", "", true, func(t *testing.T, r *rig, p *pod) {
		r.add(t, p)
		r.cache(t, p)
		for _, verb := range []string{"DEL", "ADD"} {
			if got := r.plugin(t, verb, p); got.Code != 0 {
				t.Fatal(got.Stdout)
			}
		}
	}},
}

// TestAdoptedEntries: each entry beside a broken neighbour, and looked at twice.
func TestAdoptedEntries(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.Sync(t)
		broken := attachment.Owner{Network: network, ContainerID: "broken", IfName: "eth0"}
		for i, e := range entries {
			ours := e.entry
			switch ours {
			case "":
				ours = plain
			case "-":
				ours = ""
			}
			overwrite(t, filepath.Join(r.ConfDir, "10-pods.conflist"), conflist(network, ours))
			if err := os.RemoveAll(filepath.Join(r.CacheDir, "results")); err != nil {
				t.Fatal(err)
			}
			r.cacheText(t, broken, []string{"", "{", "null", "[]", `{"kind": "cniCacheV1", "result": 7}`, "\xff\xfe"}[i%6])
			p := r.newPod(t, fmt.Sprintf("pod%d", i))
			e.write(t, r, p)
			r.Sync(t)
			r.Sync(t)
			want := p.Addrs[0].String()
			if e.adopted {
				want = nodeAddress
			}
			if got := seenAs(p.Pod, r.Internet.IPv4); got != want || r.hasRecord(p) != e.adopted || r.hasRule(t, p) != e.adopted {
				t.Errorf("%s: seen as %s, want %s; record %v, rule %v", e.name, got, want, r.hasRecord(p), r.hasRule(t, p))
			}
			if got := r.plugin(t, "DEL", p); got.Code != 0 {
				t.Errorf("%s: DEL: %s", e.name, got.Stdout)
			}
			p.Remove()
		}
	})
}

// TestHalfWrittenEntryIsPickedUpLater: the runtime completes its file in place, which changes no directory.
func TestHalfWrittenEntryIsPickedUpLater(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		overwrite(t, filepath.Join(r.ConfDir, "10-pods.conflist"), conflist(network, plain))
		r.Write(t, "resyncInterval: 300ms\n")
		p := r.newPod(t, "a")
		path := r.cache(t, p)
		whole := read(t, path)
		overwrite(t, path, whole[:len(whole)/2])
		agent := r.startReady(t)
		r.wantSeen(t, p, p.Addrs[0].String())
		r.quiesce(t)
		overwrite(t, path, whole)
		r.eventually(t, agent, "adopted", func() bool { return r.hasRecord(p) && seenAs(p.Pod, r.Internet.IPv4) == nodeAddress })
		if strings.Contains(agent.Output(), "level=ERROR") {
			t.Error(agent.Output())
		}
	})
}
