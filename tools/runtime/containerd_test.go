package runtime

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Two policies. The second differs from the defaults as well, so that whoever follows it must have read it somewhere.
const (
	corpKept       = "nonMasqueradeCIDRs: [10.0.0.0/8]\n"
	corpMasquerade = "nonMasqueradeCIDRs: [10.0.0.0/8]\nmasqueradeCIDRs: [10.99.0.0/16]\n"
)

// What the two hosts see of pods that are masqueraded.
const (
	nodeToInternet = "192.0.2.1"
	nodeToCorp     = "10.99.0.1"
)

// TestLife is a node's life: installed, used, restarted, changed, crashed and booted again. Two hosts watch all the time.
func TestLife(t *testing.T) {
	eachSetup(t, func(t *testing.T, s setup) {
		n := newNode(t, s)
		n.importImage(t)
		n.install(t)
		n.configure(t, corpKept)
		n.startAgent(t)

		a, b := n.startPod(t, "a", own), n.startPod(t, "b", own)
		n.restartContainerd(t, a, b)
		c := n.restartAgent(t, a, b)
		n.change(t, a, b, c)
		n.removePod(t, a)
		n = n.crashAndBoot(t, b, c)
		n.removeAll(t)
	})
}

// own stands for the pod's own address.
const own = "own"

// startPod starts a pod that talks from its first breath, and looks at all that it says.
func (n *node) startPod(t *testing.T, name, corp string) pod {
	t.Helper()
	started := time.Now()
	p := n.cri.run(t, name, 0)
	n.internet.first(t, name, "sandbox", "app")
	n.corp.first(t, name, "sandbox", "app")
	n.talks(t, p, started, corp)
	if !n.hasRule(t, p.address) {
		t.Errorf("no rule has %s's address %s", name, p.address)
	}
	return p
}

// talks: the internet sees the node, and the corporation whom it should.
func (n *node) talks(t *testing.T, p pod, since time.Time, corp string) {
	t.Helper()
	if corp == own {
		corp = p.address
	}
	n.internet.saw(t, p.name, since, nodeToInternet)
	n.corp.saw(t, p.name, since, corp)
}

// restartContainerd: pods live on without it, and it finds them again.
func (n *node) restartContainerd(t *testing.T, pods ...pod) {
	t.Helper()
	killed, before := time.Now(), n.records()
	n.containerd.stop(syscall.SIGKILL)
	n.startContainerd(t)
	if ready := n.cri.sandboxes(t)[cri.PodSandboxState_SANDBOX_READY]; len(ready) != len(pods) {
		t.Errorf("%d pods after the restart of containerd, want %d", len(ready), len(pods))
	}
	if after := n.records(); len(after) != len(pods) || !slices.Equal(before, after) {
		t.Errorf("records %q after the restart of containerd, before %q", after, before)
	}
	n.allTalk(t, pods, killed, own)
}

// restartAgent: pods live on without it, and a new one starts.
func (n *node) restartAgent(t *testing.T, pods ...pod) pod {
	t.Helper()
	killed := time.Now()
	n.agent.stop(syscall.SIGKILL)
	c := n.startPod(t, "c", own)
	n.startAgent(t)
	if got := n.records(); len(got) != len(pods)+1 {
		t.Errorf("records %q after the restart of the agent, want those of %d pods", got, len(pods)+1)
	}
	n.allTalk(t, append(pods, c), killed, own)
	n.allTalk(t, append(pods, c), time.Now(), own)
	return c
}

func (n *node) allTalk(t *testing.T, pods []pod, since time.Time, corp string) {
	t.Helper()
	for _, p := range pods {
		n.talks(t, p, since, corp)
	}
}

// change: a second after the file changed, all that arrives follows it. Somebody else's work may keep the machine from that,
// so one of three attempts has to.
func (n *node) change(t *testing.T, pods ...pod) {
	t.Helper()
	began := time.Now()
	for attempt := 1; !n.changeWithinASecond(t, pods); attempt++ {
		if attempt == 3 {
			t.Fatalf("three changes of the configuration took more than a second each")
		}
		n.configure(t, corpKept)
		time.Sleep(2 * time.Second)
	}
	n.allTalk(t, pods, time.Now(), nodeToCorp)
	for _, p := range pods {
		n.internet.saw(t, p.name, began, nodeToInternet)
	}
}

func (n *node) changeWithinASecond(t *testing.T, pods []pod) bool {
	t.Helper()
	n.configure(t, corpMasquerade)
	inForce := time.Now().Add(time.Second)
	time.Sleep(time.Until(inForce.Add(300 * time.Millisecond)))
	return !slices.ContainsFunc(pods, func(p pod) bool {
		later := n.corp.of(p.name, inForce)
		return len(later) == 0 || slices.ContainsFunc(later, func(p packet) bool { return p.from.String() != nodeToCorp })
	})
}

// removePod leaves nothing of the pod's.
func (n *node) removePod(t *testing.T, p pod) {
	t.Helper()
	before := len(n.records())
	n.cri.remove(t, p.sandbox)
	if after := len(n.records()); after != before-1 {
		t.Errorf("%d records after the removal of %s, want %d", after, p.name, before-1)
	}
	if n.hasRule(t, p.address) {
		t.Errorf("%s is still in a rule", p.address)
	}
}

// crashAndBoot: the node loses all but its disk, and its pods are started again before the agent is, as the kubelet does it.
func (n *node) crashAndBoot(t *testing.T, pods ...pod) *node {
	t.Helper()
	n.crash()
	n = n.boot(t, n.disk)
	if left := n.records(); len(left) != 0 {
		t.Fatalf("the crash left %q in /run", left)
	}
	dead := n.cri.sandboxes(t)[cri.PodSandboxState_SANDBOX_NOTREADY]
	if len(dead) != len(pods) {
		t.Errorf("containerd remembers %d dead pods, want %d", len(dead), len(pods))
	}
	for _, s := range dead {
		n.cri.remove(t, s.Id)
		n.startPod(t, s.Metadata.Name, nodeToCorp)
	}
	booted := time.Now()
	n.startAgent(t)
	time.Sleep(200 * time.Millisecond)
	n.allTalk(t, pods, booted, nodeToCorp)
	return n
}

// removeAll leaves a node as it was before its first pod.
func (n *node) removeAll(t *testing.T) {
	t.Helper()
	for _, s := range n.cri.sandboxes(t)[cri.PodSandboxState_SANDBOX_READY] {
		status := must(t, n.cri.PodSandboxStatus, &cri.PodSandboxStatusRequest{PodSandboxId: s.Id}).Status
		n.removePod(t, pod{s.Metadata.Name, s.Id, status.Network.Ip})
	}
	if left := n.records(); len(left) != 0 {
		t.Errorf("records are left: %q", left)
	}
	if left, _ := os.ReadDir(filepath.Join(n.disk, "var/lib/cni/results")); len(left) != 0 {
		t.Errorf("attachments are left in the runtime's cache: %v", left)
	}
}
