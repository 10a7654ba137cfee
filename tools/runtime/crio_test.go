package runtime

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// crio makes the calls that CRI-O makes, through the library that it makes them with. CRI-O itself has no package here.
type crio struct {
	*netnstest.Node
	cni  *libcni.CNIConfig
	exec *inside
	list *libcni.NetworkConfigList
}

// newCRIO starts as CRI-O does: it asks the network's plugins for their versions and their state, and tells them which pods
// there are: none, which it says as null.
func newCRIO(t *testing.T, backend string) *crio {
	t.Helper()
	node := netnstest.NewNode(t)
	example := strings.Replace(string(readFile(t, "conf/10-bridge-ip-masq.conflist")), `"1.0.0"`, `"1.1.0"`, 1)
	name := node.Conflist(t, []byte(example), map[string]any{"backend": backend})
	exec := &inside{node: node}
	c := &crio{Node: node, exec: exec, cni: libcni.NewCNIConfigWithCacheDir([]string{testkit.Built(), "bin/tools"}, node.CacheDir, exec)}
	var err error
	if c.list, err = libcni.ConfListFromFile(filepath.Join(node.ConfDir, "10-"+name+".conflist")); err != nil {
		t.Fatal(err)
	}
	ctx := bounded(t)
	if _, err := c.cni.ValidateNetworkList(ctx, c.list); err != nil {
		t.Fatalf("VERSION: %v", err)
	}
	if err := c.cni.GetStatusNetworkList(ctx, c.list); err != nil {
		t.Fatalf("STATUS: %v", err)
	}
	c.gc(t)
	return c
}

// runPod is ADD with a CHECK right behind it, whose error would fail the pod.
func (c *crio) runPod(t *testing.T, id string) (*netnstest.Pod, *libcni.RuntimeConf) {
	t.Helper()
	pod := c.NewPod(t, id)
	rt := &libcni.RuntimeConf{ContainerID: id, NetNS: pod.Path, IfName: "eth0", Args: [][2]string{
		{"IgnoreUnknown", "1"},
		{"K8S_POD_NAMESPACE", "default"},
		{"K8S_POD_NAME", id},
		{"K8S_POD_INFRA_CONTAINER_ID", id},
		{"K8S_POD_UID", "uid-" + id},
	}}
	if _, err := c.cni.AddNetworkList(bounded(t), c.list, rt); err != nil {
		t.Fatalf("ADD: %v", err)
	}
	if err := c.cni.CheckNetworkList(bounded(t), c.list, rt); err != nil {
		t.Fatalf("CHECK right after ADD: %v", err)
	}
	seen, err := pod.Seen("udp", c.Internet.IPv4)
	if err != nil || seen.Addr().String() != nodeToInternet {
		t.Fatalf("the internet saw %s as %v, %v", id, seen, err)
	}
	return pod, rt
}

// stopPod is DEL with what was cached at ADD, whatever the network has become.
func (c *crio) stopPod(t *testing.T, rt *libcni.RuntimeConf) {
	t.Helper()
	cached, cachedRT, err := c.cni.GetNetworkListCachedConfig(c.list, rt)
	if err != nil || cached == nil {
		t.Fatalf("cached config: %s, %v", cached, err)
	}
	list, err := libcni.ConfListFromBytes(cached)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cni.DelNetworkList(bounded(t), list, cachedRT); err != nil {
		t.Fatalf("DEL: %v", err)
	}
}

func (c *crio) gc(t *testing.T, valid ...types.GCAttachment) {
	t.Helper()
	if err := c.cni.GCNetworkList(bounded(t), c.list, &libcni.GCArgs{ValidAttachments: valid}); err != nil {
		t.Fatalf("GC: %v", err)
	}
}

func (c *crio) wantRecords(t *testing.T, want int) {
	t.Helper()
	got, _ := filepath.Glob(filepath.Join(c.StateDir, "attachments", "*"))
	if len(got) != want {
		t.Errorf("records %q, want %d", got, want)
	}
}

func TestCRIO(t *testing.T) {
	for _, backend := range []string{"iptables", "nftables"} {
		t.Run(backend, func(t *testing.T) {
			netnstest.Require(t, "bridge", "host-local", "iptables", "nft")
			t.Parallel()
			c := newCRIO(t, backend)
			a, deleted := c.runPod(t, "a")
			_, _ = c.runPod(t, "lost")
			c.wantRecords(t, 2)

			c.gc(t, types.GCAttachment{ContainerID: "a", IfName: "eth0"}, types.GCAttachment{ContainerID: "of-the-host", IfName: "eth0"})
			c.wantRecords(t, 1)
			if seen, err := a.Seen("udp", c.Internet.IPv4); err != nil || seen.Addr().String() != nodeToInternet {
				t.Errorf("after GC the internet saw a as %v, %v", seen, err)
			}

			c.list.Plugins = c.list.Plugins[:1] // somebody took our entry out
			c.stopPod(t, deleted)
			c.wantRecords(t, 0)
			c.exec.wantCalls(t)
		})
	}
}

// TestCRIOReboot: null after a crash, when the library's cache is all that is left of the pods.
func TestCRIOReboot(t *testing.T) {
	netnstest.Require(t, "bridge", "host-local", "iptables", "nft")
	t.Parallel()
	c := newCRIO(t, "iptables")
	pod, _ := c.runPod(t, "a")
	pod.Remove()
	if err := os.RemoveAll(c.StateDir); err != nil {
		t.Fatal(err)
	}
	c.Run(t, "nft", "flush", "ruleset")
	c.gc(t)
	c.wantRecords(t, 0)
	if left, _ := os.ReadDir(filepath.Join(c.CacheDir, "results")); len(left) != 0 {
		t.Errorf("the cache still has %v", left)
	}
	c.runPod(t, "b")
}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}
