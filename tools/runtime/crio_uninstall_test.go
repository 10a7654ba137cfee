package runtime

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// TestCRIOUninstall: CRI-O deletes a pod by the list of the pod's start, so it calls the plugin for a pod of before although no list
// names the plugin any more, and starts anew in between.
func TestCRIOUninstall(t *testing.T) {
	for _, backend := range []string{"iptables", "nftables"} {
		for _, wait := range []string{"true", "false"} {
			t.Run(backend+"/wait="+wait, func(t *testing.T) {
				netnstest.Require(t, "bridge", "host-local", "iptables", "nft")
				t.Parallel()
				l := newCRIOLeaver(t, backend)
				_, first := l.runPod(t, "first")
				second, other := l.runPod(t, "second")
				remover := l.uninstall(t, "--wait="+wait)
				l.awaitBare(t)
				if wait == "true" {
					l.awaitWords(t, remover, "2 pods")
				} else {
					l.awaitWords(t, remover, "off this node")
				}
				remover.Stop(syscall.SIGKILL, 5*time.Second)

				l.reload(t)
				l.stopPod(t, first)
				remover = l.uninstall(t, "--wait="+wait)
				if !exists(l.binary()) {
					t.Fatal("the plugin is gone, which a pod names")
				}
				if seen, err := second.Seen("udp", l.Internet.IPv4); err != nil || (seen.Addr().String() == nodeToInternet) != (wait == "true") {
					t.Errorf("the internet saw the second pod as %v, %v", seen, err)
				}
				l.stopPod(t, other)
				netnstest.Eventually(t, 20*time.Second, "the plugin goes with its last pod", func() bool { return !exists(l.binary()) })
				l.awaitWords(t, remover, "off this node")
				l.wantClean(t)

				l.reload(t)
				bare := l.NewPod(t, "bare")
				rt := &libcni.RuntimeConf{ContainerID: "bare", NetNS: bare.Path, IfName: "eth0"}
				if _, err := l.cni.AddNetworkList(bounded(t), l.list, rt); err != nil {
					t.Fatalf("ADD without the plugin: %v", err)
				}
				l.stopPod(t, rt)
				l.gc(t)
			})
		}
	}
}

// crioLeaver is a node with the plugin installed by the installer.
type crioLeaver struct {
	*crio
	backend, bin, file string
	before             []byte
}

func newCRIOLeaver(t *testing.T, backend string) *crioLeaver {
	t.Helper()
	node := netnstest.NewNode(t)
	before := clusterNetwork(t, "1.1.0")
	l := &crioLeaver{backend: backend, bin: t.TempDir(), before: before, file: filepath.Join(node.ConfDir, "10-pods.conflist")}
	writeFile(t, l.file, before, 0o644)
	exec := &inside{node: node}
	l.crio = &crio{Node: node, exec: exec, cni: libcni.NewCNIConfigWithCacheDir([]string{l.bin, "bin/tools"}, node.CacheDir, exec)}
	entry := string(document(t, map[string]any{"type": "ip-masq", "backend": backend, "stateDir": node.StateDir, "dataDir": node.DataDir}))
	install := append([]string{testkit.Program("ip-masq-installer"), "install", "--source-dir", testkit.Built(), "--entry", entry}, l.places()...)
	node.Run(t, install...)
	l.reload(t)
	return l
}

func (l *crioLeaver) places() []string {
	return []string{"--cni-bin-dir", l.bin, "--cni-conf-dir", l.ConfDir, "--cni-cache-dir", l.CacheDir, "--state-dir", l.StateDir, "--data-dir", l.DataDir}
}

func (l *crioLeaver) binary() string { return filepath.Join(l.bin, "ip-masq") }

func (l *crioLeaver) uninstall(t *testing.T, args ...string) *netnstest.Process {
	t.Helper()
	line := append([]string{testkit.Program("ip-masq-agent"), "uninstall", "--backend", l.backend}, l.places()...)
	return l.Start(t, netnstest.Cmd{Args: append(line, args...)})
}

// reload is what a start of CRI-O does with the list of now.
func (l *crioLeaver) reload(t *testing.T) {
	t.Helper()
	var err error
	if l.list, err = libcni.ConfListFromFile(l.file); err != nil {
		t.Fatal(err)
	}
	if _, err := l.cni.ValidateNetworkList(bounded(t), l.list); err != nil {
		t.Fatalf("VERSION: %v", err)
	}
	if err := l.cni.GetStatusNetworkList(bounded(t), l.list); err != nil {
		t.Fatalf("STATUS: %v", err)
	}
}

func (l *crioLeaver) awaitBare(t *testing.T) {
	t.Helper()
	netnstest.Eventually(t, 10*time.Second, "the entry is out of the list", func() bool { return bytes.Equal(readFile(t, l.file), l.before) })
}

func (l *crioLeaver) awaitWords(t *testing.T, p *netnstest.Process, words string) {
	t.Helper()
	netnstest.Eventually(t, 15*time.Second, words, func() bool { return strings.Contains(p.Output(), words) })
}

func (l *crioLeaver) wantClean(t *testing.T) {
	t.Helper()
	if rules := l.Run(t, "nft", "list", "ruleset"); strings.Contains(strings.ToLower(rules), "ip-masq") {
		t.Errorf("rules are left:\n%s", rules)
	}
	if got := readFile(t, l.file); !bytes.Equal(got, l.before) {
		t.Errorf("the list is not given back:\n%s", got)
	}
	for _, dir := range []string{l.StateDir, l.DataDir, l.bin} {
		_ = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
			if err == nil && !e.IsDir() && !strings.Contains(e.Name(), "lock") {
				t.Errorf("%s is left", path)
			}
			return nil
		})
	}
}
