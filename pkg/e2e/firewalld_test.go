package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// firewalld is Debian's own, running on the node.
type firewalld struct {
	*netnstest.Process
	work    string
	reloads int
}

// startFirewalld runs it with the iptables of the variant, which is the kind that throws away everybody's rules at a reload.
// The mounts of the machine are seen through overlays, and all its processes end with the first.
func (r *rig) startFirewalld(t *testing.T) *firewalld {
	t.Helper()
	netnstest.Require(t, "dbus-daemon", "/usr/share/dbus-1/system.conf", "unshare", "iptables-nft", "iptables-legacy",
		"/usr/bin/python3", "/usr/lib/python3/dist-packages/dbus/__init__.py", "/usr/lib/python3/dist-packages/gi/__init__.py")
	unpacked := unpackedFirewalld(t)
	script, err := filepath.Abs("testdata/firewalld.sh")
	if err != nil {
		t.Fatal(err)
	}
	f := &firewalld{work: t.TempDir()}
	path, _, _ := strings.Cut(r.path(), ":")
	f.Process = r.Start(t, netnstest.Cmd{Args: []string{
		"unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", script, unpacked, f.work, "iptables", path,
	}})
	f.await(t, "running", 1)
	return f
}

func unpackedFirewalld(t *testing.T) string {
	t.Helper()
	root, err := netnstest.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	unpacked := filepath.Join(root, "bin/tools/firewalld")
	if exists(unpacked) {
		return unpacked
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("needs %s; scripts/firewalld unpacks it", unpacked)
	}
	t.Skipf("needs %s; scripts/firewalld unpacks it", unpacked)
	return ""
}

func (f *firewalld) await(t *testing.T, word string, times int) {
	t.Helper()
	for end := time.Now().Add(2 * patience); strings.Count(f.Output(), word+"\n") < times; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("firewalld is not %s:\n%s", word, f.Output())
		}
	}
}

// reload returns as soon as firewall-cmd has.
func (f *firewalld) reload(t *testing.T) {
	t.Helper()
	f.reloads++
	overwrite(t, filepath.Join(f.work, "reload"), "")
	f.await(t, "reloaded", f.reloads)
}

// path is the PATH of the node's commands; its first directory holds the variant's iptables.
func (r *rig) path() string {
	for _, kv := range r.Env {
		if path, ok := strings.CutPrefix(kv, "PATH="); ok {
			return path
		}
	}
	return ""
}

// TestFirewalldReload: firewalld with its iptables backend empties every table at a reload. (With its nftables backend it
// leaves everybody else's alone, and so there is nothing to see.)
func TestFirewalldReload(t *testing.T) {
	eachIPTables(t, func(t *testing.T, r *rig) {
		f := r.startFirewalld(t)
		p := r.attached(t, "a")
		want := r.standing(t)
		f.reload(t)
		if got := r.standing(t); got != "" {
			t.Fatalf("firewalld left the rules alone, so this test shows nothing:\n%s", got)
		}
		limit := time.Second
		r.Write(t, never)
		if !r.Events {
			limit = 2 * time.Second
			r.Write(t, "resyncInterval: 1s\n")
		}
		agent := r.startReady(t)
		best := time.Hour
		for i := 0; i < 3 && best > netnstest.Limit(limit); i++ {
			f.reload(t)
			best = min(best, r.eventually(t, agent, "the rules as they were", func() bool { return r.standing(t) == want }))
			r.wantSeen(t, p, nodeAddress)
		}
		t.Logf("repaired %s after firewall-cmd --reload", best.Round(time.Millisecond))
		if best > netnstest.Limit(limit) {
			t.Errorf("the quickest of three repairs took %s, want %s\n%s", best, limit, agent.Output())
		}
	})
}
