package nftables

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

func TestIsStaleProbe(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for name, want := range map[string]bool{
		probeTableName(now):                     false,
		probeTableName(now.Add(-probeTime)):     false,
		probeTableName(now.Add(-2 * probeTime)): true,
		probeTableName(now.Add(time.Hour)):      true, // the clock was set back
		"ip-masq-agent-probe-1":                 true, // of an earlier version, by process id
		"ip-masq-agent-probe-":                  true,
		"ip-masq-agent-probe":                   false,
		"ip-masq-agent":                         false,
		"foreign":                               false,
	} {
		if got := isStaleProbe(name, now); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestProbeAfterKilledProbes: what they left neither makes the probe fail nor stays; a probe that runs now is left alone.
func TestProbeAfterKilledProbes(t *testing.T) {
	netnstest.Require(t, "nft")
	n := newNode(t)
	running := probeTableName(time.Now())
	for _, name := range []string{"ip-masq-agent-probe-1", fmt.Sprintf("ip-masq-agent-probe-%d", 1<<20), probeTableName(time.Now().Add(-time.Hour)), running} {
		n.Run(t, "nft", fmt.Sprintf("table inet %s { flags dormant; set pods4 { type ipv4_addr; }; chain c { type nat hook postrouting priority srcnat; ip saddr @pods4 masquerade; }; }", name))
	}
	n.probe(policy.IPv4)
	n.probe(policy.IPv6)
	if left := strings.TrimSpace(n.Run(t, "nft", "list", "tables")); left != "table inet "+running {
		t.Errorf("left:\n%s", left)
	}
	if err := n.Do(func() error { return n.RemoveAll(context.Background()) }); err != nil {
		t.Fatal(err)
	}
	if left := n.Run(t, "nft", "list", "tables"); left != "" {
		t.Errorf("RemoveAll left:\n%s", left)
	}
}

// TestProbesSideBySide: plugins of several networks, with state directories of their own, may probe at once.
func TestProbesSideBySide(t *testing.T) {
	netnstest.Require(t)
	n := newNode(t)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { n.probe(policy.IPv4) })
	}
	wg.Wait()
}

func (n node) probe(f policy.Family) {
	n.t.Helper()
	err := n.Do(func() error {
		features, err := n.Probe(context.Background(), f)
		if err == nil && !features.RandomFully {
			err = fmt.Errorf("no random ports")
		}
		return err
	})
	if err != nil {
		n.t.Error(err)
	}
}
