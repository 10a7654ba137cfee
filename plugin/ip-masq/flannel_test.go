package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// TestFlannel runs flannel's own plugin on what the installer makes of kube-flannel's list, with what flanneld would write. With
// FLANNEL_IPMASQ=false its bridge masquerades everything by itself unless the list says otherwise, which the installer warns of.
func TestFlannel(t *testing.T) {
	netnstest.Require(t, "flannel", "portmap")
	for name, tt := range map[string]struct {
		ipMasq   string // FLANNEL_IPMASQ
		delegate any    // the delegate's ipMasq, nil for none
		inside   string // what the corporate network sees
	}{
		"flanneld would masquerade":     {"true", nil, "10.244.0.2"},
		"nobody would":                  {"false", false, "10.244.0.2"},
		"the bridge does, by flannel's": {"false", nil, "10.99.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			eachVariant(t, func(t *testing.T, v variant) {
				n := newNode(t, v, false)
				dir := t.TempDir()
				env := filepath.Join(dir, "subnet.env")
				text := "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.0.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=" + tt.ipMasq + "\n"
				if err := os.WriteFile(env, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				var list map[string]any
				unmarshal(t, string(readFile(t, "../../pkg/install/testdata/flannel.conflist.golden")), &list)
				flannel := list["plugins"].([]any)[0].(map[string]any)
				flannel["subnetFile"], flannel["dataDir"] = env, filepath.Join(dir, "flannel")
				if tt.delegate != nil {
					flannel["delegate"].(map[string]any)["ipMasq"] = tt.delegate
				}
				data, err := json.Marshal(list)
				if err != nil {
					t.Fatal(err)
				}
				extra := map[string]any{}
				if !v.IsIPTables() {
					extra["backend"] = v.Choice
				}
				n.network = n.Conflist(t, data, extra)
				pod := n.NewPod(t, "a")
				n.cni(t, "add", pod)
				wantSeen(t, pod, "udp", n.Internet.IPv4, "192.0.2.1")
				wantSeen(t, pod, "tcp", n.Internet.IPv4, "192.0.2.1")
				wantSeen(t, pod, "udp", n.Corp.IPv4, tt.inside)
				wantSeen(t, pod, "tcp", n.Corp.IPv4, tt.inside)
				n.cni(t, "del", pod)
				n.wantPods(t)
			})
		})
	}
}
