package runtime

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

const (
	installed   = "conf/ip-masq-agent.yaml"
	uninstalled = "conf/uninstall.yaml"
	plugin      = "opt/cni/bin/ip-masq"
)

// TestUninstall: the pod of conf/uninstall.yaml takes the place of conf/ip-masq-agent.yaml's on a node with pods, is killed and
// started again all the time, and leaves nothing. The runtime deletes every pod without a failure, also one that names the plugin.
func TestUninstall(t *testing.T) {
	eachSetup(t, func(t *testing.T, s setup) {
		n := newNode(t, s)
		n.importImage(t)
		n.importProduct(t)
		n.configure(t, corpKept)
		l := &leaver{node: n, before: readFile(t, filepath.Join(n.disk, confFile))}
		l.waits(t)
		l.doesNotWait(t)
	})
}

// leaver is a node that is to become what it was.
type leaver struct {
	*node
	before []byte // the network's list
}

// come applies the manifest, and starts pods behind the policy.
func (l *leaver) come(t *testing.T, names ...string) (agent string, pods []pod) {
	t.Helper()
	agent = l.deploy(t, installed, "--backend="+l.backend)
	l.awaitDeployed(t)
	netnstest.Eventually(t, 10*time.Second, "the plugin is in place", func() bool {
		return exists(l.path(plugin)) && !bytes.Equal(l.list(t), l.before)
	})
	time.Sleep(time.Second) // until the runtime has loaded the list
	for _, name := range names {
		pods = append(pods, l.startPod(t, name, own))
	}
	return agent, pods
}

// waits: rules and plugin stay for the pods that name the plugin, and go with the last.
func (l *leaver) waits(t *testing.T) {
	t.Helper()
	began := time.Now()
	agent, pods := l.come(t, "a", "b", "c")
	l.cri.remove(t, agent)
	remover := l.deploy(t, uninstalled)
	l.awaitReason(t, "3 pods")
	if got := l.list(t); !bytes.Equal(got, l.before) {
		t.Errorf("the entry is not out of the list while the node waits:\n%s", got)
	}
	later := l.startBare(t, "later")
	l.allTalk(t, pods, began, own)

	// containerd deletes a pod by the list of now, not by that of the pod's start. So no plugin removes the rule, but the pod here.
	l.cri.remove(t, pods[0].sandbox)
	l.awaitReason(t, "2 pods")
	l.awaitForgotten(t, pods[0])
	l.cri.remove(t, remover)
	l.cri.remove(t, pods[1].sandbox)
	remover = l.deploy(t, uninstalled)
	l.awaitReason(t, "1 pods")
	l.awaitForgotten(t, pods[1])
	l.talks(t, pods[2], began, own)
	l.cri.remove(t, pods[2].sandbox)
	l.awaitDeployed(t)
	l.wantClean(t)
	l.cri.remove(t, remover)

	last := l.startBare(t, "last")
	l.cri.remove(t, later.sandbox)
	l.cri.remove(t, last.sandbox)
	l.wantNoAttachments(t)
}

// doesNotWait: rules go at once and the plugin with the last pod, wherever the removal is killed.
func (l *leaver) doesNotWait(t *testing.T) {
	t.Helper()
	agent, pods := l.come(t, "d", "e")
	l.cri.remove(t, agent)
	for delay := time.Duration(0); delay < 600*time.Millisecond; delay += 100 * time.Millisecond {
		remover := l.deploy(t, uninstalled, "--wait=false")
		time.Sleep(delay)
		l.cri.remove(t, remover)
		if !exists(l.path(plugin)) {
			t.Fatalf("killed after %v: the plugin is gone, which two pods name", delay)
		}
	}
	remover := l.deploy(t, uninstalled, "--wait=false")
	l.awaitDeployed(t)
	l.wantNoRules(t)
	since := time.Now()
	for _, p := range pods {
		l.internet.saw(t, p.name, since, p.address)
	}
	l.cri.remove(t, pods[0].sandbox)
	if !exists(l.path(plugin)) {
		t.Fatal("the plugin is gone, which a pod names")
	}
	l.cri.remove(t, remover)
	l.cri.remove(t, pods[1].sandbox)
	remover = l.deploy(t, uninstalled, "--wait=false")
	netnstest.Eventually(t, 20*time.Second, "the plugin goes with its last pod", func() bool { return !exists(l.path(plugin)) })
	l.awaitDeployed(t)
	l.wantClean(t)
	l.cri.remove(t, remover)
	bare := l.startBare(t, "f")
	l.cri.remove(t, bare.sandbox)
	l.wantNoAttachments(t)
}

func (l *leaver) awaitForgotten(t *testing.T, p pod) {
	t.Helper()
	netnstest.Eventually(t, 2*time.Second, "no rule has "+p.name+"'s address", func() bool { return !l.hasRule(t, p.address) })
}

func (l *leaver) list(t *testing.T) []byte {
	t.Helper()
	return readFile(t, filepath.Join(l.disk, confFile))
}

// startBare starts a pod that no rule is for.
func (l *leaver) startBare(t *testing.T, name string) pod {
	t.Helper()
	started := time.Now()
	p := l.cri.run(t, name, 0)
	l.internet.first(t, name, "sandbox", "app")
	l.internet.saw(t, name, started, p.address)
	return p
}

func (l *leaver) wantNoRules(t *testing.T) {
	t.Helper()
	if rules := l.run(t, "nft", "list", "ruleset"); strings.Contains(strings.ToLower(rules), "ip-masq") {
		t.Errorf("rules are left:\n%s", rules)
	}
}

// wantClean: nothing is left but locks, and the network is ready for pods.
func (l *leaver) wantClean(t *testing.T) {
	t.Helper()
	l.wantNoRules(t)
	if got := l.list(t); !bytes.Equal(got, l.before) {
		t.Errorf("the list is not given back:\n%s", got)
	}
	if exists(l.path(plugin)) {
		t.Error("the plugin is left")
	}
	for _, dir := range []string{"run/ip-masq-agent", "var/lib/ip-masq-agent"} {
		_ = filepath.WalkDir(l.path(dir), func(path string, e os.DirEntry, err error) error {
			if err == nil && !e.IsDir() && !strings.Contains(e.Name(), "lock") {
				t.Errorf("%s is left", path)
			}
			return nil
		})
	}
	if err := l.cri.networkReady(); err != nil {
		t.Errorf("the network is not ready: %v", err)
	}
}

// wantNoAttachments: the runtime has forgotten every pod's network.
func (l *leaver) wantNoAttachments(t *testing.T) {
	t.Helper()
	if left, _ := os.ReadDir(filepath.Join(l.disk, "var/lib/cni/results")); len(left) != 0 {
		t.Errorf("attachments are left in the runtime's cache: %v", left)
	}
}
