package runtime

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// TestStatus: a node on which no pod could be attached says so to whoever schedules pods, and recovers by itself. That takes
// cniVersion 1.1.0 and a runtime that asks.
func TestStatus(t *testing.T) {
	s := setups["newest/iptables"]
	s.require(t)
	t.Parallel()
	n := newNode(t, s)
	n.importImage(t)
	n.install(t)
	p := n.startPod(t, "a", own)
	began := time.Now()

	state := n.path("run/ip-masq-agent")
	rename(t, state, state+".aside")
	writeFile(t, state, nil, 0o644)
	netnstest.Eventually(t, 5*time.Second, "the network is not ready, because of ip-masq's directory", func() bool {
		err := n.cri.networkReady()
		return err != nil && strings.Contains(err.Error(), "/run/ip-masq-agent")
	})
	t.Log(n.cri.networkReady())

	if err := os.Remove(state); err != nil {
		t.Fatal(err)
	}
	rename(t, state+".aside", state)
	netnstest.Eventually(t, 5*time.Second, "the network is ready again", func() bool { return n.cri.networkReady() == nil })
	n.talks(t, p, began, own)
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}
