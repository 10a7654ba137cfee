package netnstest

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// reference is a network of reference plugins only, so that this package can be
// tested without the product.
const reference = `{
  "cniVersion": "1.0.0", "name": "ref",
  "plugins": [{
    "type": "bridge", "bridge": "cni0", "isGateway": true,
    "ipam": {
      "type": "host-local",
      "ranges": [[{"subnet": "10.244.0.0/24"}], [{"subnet": "fd00:244::/64"}]],
      "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    }
  }]
}`

func TestCNIAttachesPods(t *testing.T) {
	Require(t, "cnitool", "bridge", "host-local")
	node := NewNode(t)
	network := node.Conflist(t, []byte(reference), nil)
	for i, pod := range []*Pod{node.NewPod(t, "a"), node.NewPod(t, "b")} {
		if r := node.CNI(t, "add", network, pod.Path); r.Code != 0 {
			t.Fatalf("add: %+v", r)
		}
		for host, want := range map[netip.Addr]string{
			node.Internet.IPv4: []string{"10.244.0.2", "10.244.0.3"}[i],
			node.Corp.IPv6:     []string{"fd00:244::2", "fd00:244::3"}[i],
		} {
			if got := seen(t, pod.Space, "udp", host); got.String() != want {
				t.Errorf("%s saw %s, want %s", host, got, want)
			}
		}
		if r := node.CNI(t, "check", network, pod.Path); r.Code != 0 {
			t.Errorf("check: %+v", r)
		}
	}
	if leases, _ := filepath.Glob(filepath.Join(node.CacheDir, "networks/ref/10.*")); len(leases) != 2 {
		t.Errorf("leases %v, want two in the node's own cache", leases)
	}
}

func TestCNIReportsAPluginsError(t *testing.T) {
	Require(t, "cnitool")
	node := NewNode(t)
	network := node.Conflist(t, []byte(strings.ReplaceAll(reference, "bridge", "no-such-plugin")), nil)
	if r := node.CNI(t, "add", network, node.NewPod(t, "a").Path); r.Code == 0 || !strings.Contains(r.Stderr, "no-such-plugin") {
		t.Errorf("got %+v", r)
	}
}

func TestConflistPointsToPrivatePlaces(t *testing.T) {
	Require(t)
	node := NewNode(t)
	node.Conflist(t, []byte(`{"name": "n", "plugins": [{"type": "bridge"}, {"type": "ip-masq"}]}`), map[string]any{"backend": "iptables"})
	data, err := os.ReadFile(filepath.Join(node.ConfDir, "10-n.conflist"))
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Plugins []map[string]any }
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if p := got.Plugins[1]; p["stateDir"] != node.StateDir || p["dataDir"] != node.DataDir || p["backend"] != "iptables" {
		t.Errorf("our entry is %v", p)
	}
	if p := got.Plugins[0]; len(p) != 1 {
		t.Errorf("another plugin's entry became %v", p)
	}
}

func TestConfigMap(t *testing.T) {
	m := NewConfigMap(t, "config", "one")
	for _, content := range []string{"one", "two"} {
		m.Update(t, content)
		if data, err := os.ReadFile(m.Path); err != nil || string(data) != content {
			t.Errorf("read %q, %v, want %q", data, err, content)
		}
	}
	if entries, _ := os.ReadDir(m.Dir); len(entries) != 3 {
		t.Errorf("left over: %v", entries)
	}
}
