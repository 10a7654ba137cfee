package e2e

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// leaver is a node with the plugin installed, on which uninstall runs.
type leaver struct {
	*rig
	bin, list string
	before    string // the list as it was
	pods      []*pod
}

func newLeaver(t *testing.T, r *rig, pods ...string) *leaver {
	t.Helper()
	l := &leaver{rig: r, bin: t.TempDir(), list: filepath.Join(r.ConfDir, "10-pods.conflist"), before: conflist(network, "")}
	overwrite(t, l.list, l.before)
	if got := r.Try(t, append([]string{testkit.Program("ip-masq-installer"), "install", "--source-dir", testkit.Built()}, l.places()...)...); got.Code != 0 {
		t.Fatalf("install: %s%s", got.Stdout, got.Stderr)
	}
	r.Sync(t)
	for _, name := range pods {
		p := r.attached(t, name)
		r.cache(t, p, fmt.Sprintf(`"config": %q`, base64.StdEncoding.EncodeToString([]byte(read(t, l.list)))))
		l.pods = append(l.pods, p)
	}
	return l
}

func (l *leaver) places() []string {
	return []string{"--cni-bin-dir", l.bin, "--cni-conf-dir", l.ConfDir, "--cni-cache-dir", l.CacheDir, "--state-dir", l.StateDir, "--data-dir", l.DataDir}
}

func (l *leaver) binary() string { return filepath.Join(l.bin, "ip-masq") }

func (l *leaver) uninstall(t *testing.T, args ...string) *netnstest.Process {
	t.Helper()
	line := append([]string{testkit.Program("ip-masq-agent"), "uninstall", "--config", l.Config, "--backend", l.Choice}, l.places()...)
	return l.Start(t, netnstest.Cmd{Args: append(line, args...)})
}

// del deletes a pod with the plugin that is installed, as the runtime would.
func (l *leaver) del(t *testing.T, p *pod) {
	t.Helper()
	if !exists(l.binary()) {
		t.Fatalf("there is no plugin to delete %s with", p.ContainerID)
	}
	if got := l.plugin(t, "DEL", p); got.Code != 0 {
		t.Fatalf("DEL: %s%s", got.Stdout, got.Stderr)
	}
	if err := os.Remove(filepath.Join(l.CacheDir, "results", network+"-"+p.ContainerID+"-eth0")); err != nil {
		t.Fatal(err)
	}
}

// why is what /readyz answers, "ok" when ready.
func (l *leaver) why() string {
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{DialContext: l.DialContext, DisableKeepAlives: true}}
	response, err := client.Get("http://127.0.0.1:10278/readyz")
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return strings.TrimSpace(string(body))
}

func (l *leaver) awaitReason(t *testing.T, p *netnstest.Process, words string) {
	t.Helper()
	l.eventually(t, p, "/readyz says "+words+", last: "+l.why(), func() bool { why := l.why(); return why == words || words != "ok" && strings.Contains(why, words) })
}

// wantClean: nothing managed by ip-masq is left, but for locks.
func (l *leaver) wantClean(t *testing.T) {
	t.Helper()
	if got := read(t, l.list); got != l.before {
		t.Errorf("the list is not given back:\n%s", got)
	}
	if rules := l.standing(t); strings.Contains(rules, "IP-MASQ-AGENT") || strings.Contains(rules, "ip-masq-agent") {
		t.Errorf("rules are left:\n%s", rules)
	}
	for _, path := range []string{l.binary(), filepath.Join(l.StateDir, "attachments"), filepath.Join(l.StateDir, "backend.json"), filepath.Join(l.DataDir, "policy.json")} {
		if exists(path) {
			t.Errorf("%s is left", path)
		}
	}
}

// TestUninstall: the entry goes at once, also while an agent still runs. Rules, records and plugin wait for the last pod that names
// the plugin, and are kept until then. Killed and started again it goes on.
func TestUninstall(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.Write(t, never)
		l := newLeaver(t, r, "a", "b")
		agent := r.Start(t, netnstest.Cmd{Args: r.Command("run", "--metrics-bind-address=")})
		r.eventually(t, agent, "in place", func() bool { return strings.Contains(agent.Output(), "in place") })
		u := l.uninstall(t)
		l.awaitReason(t, u, "until the agent ends")
		if got := read(t, l.list); got != l.before {
			t.Errorf("the list still has the entry:\n%s", got)
		}
		if code := agent.Stop(syscall.SIGTERM, patience); code != 0 {
			t.Errorf("the agent ends with %d", code)
		}
		l.awaitReason(t, u, "2 pods")
		r.wantSeen(t, l.pods[0], nodeAddress)
		if !r.IsIPTables() {
			r.Run(t, "nft", "delete", "table", "inet", "ip-masq-agent")
			r.eventually(t, u, "rules of waiting pods are repaired", func() bool { return r.hasRule(t, l.pods[0]) })
		}
		u.Stop(syscall.SIGKILL, patience)
		l.del(t, l.pods[0])
		u = l.uninstall(t)
		l.awaitReason(t, u, "1 pods")
		if !exists(l.binary()) || !r.hasRule(t, l.pods[1]) {
			t.Errorf("plugin there: %v\n%s", exists(l.binary()), r.standing(t))
		}
		l.del(t, l.pods[1])
		l.awaitReason(t, u, "ok")
		l.wantClean(t)
		if code := u.Stop(syscall.SIGTERM, patience); code != 0 {
			t.Errorf("ends with %d\n%s", code, u.Output())
		}
		u = l.uninstall(t) // once more, for nothing
		l.awaitReason(t, u, "ok")
		l.wantClean(t)
	})
}

// TestUninstallWithoutWaiting: rules and records go although pods are there, whose deletion finds the plugin.
func TestUninstallWithoutWaiting(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		l := newLeaver(t, r, "a")
		u := l.uninstall(t, "--wait=false")
		l.awaitReason(t, u, "ok")
		if rules := l.standing(t); strings.Contains(strings.ToLower(rules), "ip-masq-agent") || r.hasRecord(l.pods[0]) {
			t.Errorf("left:\n%s", rules)
		}
		u.Stop(syscall.SIGKILL, patience)
		l.del(t, l.pods[0])
		u = l.uninstall(t, "--wait=false")
		r.eventually(t, u, "the plugin goes with its last pod", func() bool { return !exists(l.binary()) })
		l.awaitReason(t, u, "ok")
		l.wantClean(t)
	})
}

// TestUninstallEveryKey: whatever chains, sets and maps a policy with all keys needs, nothing of it is left.
func TestUninstallEveryKey(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.Write(t, never+`nonMasqueradeCIDRs: [10.0.0.0/8]
masqueradeCIDRs: [10.66.0.0/16]
outputInterfaces: [internet, corp, "!wg0"]
nodeTraffic: true
toPorts: auto
podAnnotations: [ip-masq-agent/masquerade, ip-masq-agent/source-addresses]
egress:
  - destinations: [203.0.113.0/24]
    sourceAddresses: [192.0.2.0/24]
  - destinations: [198.51.100.0/24]
    sourceAddresses: [198.18.0.0/24]
    whenMissing: drop
`)
		l := newLeaver(t, r, "a")
		if rules := l.standing(t); !strings.Contains(rules, "192.0.2.1") {
			t.Fatalf("the policy is not there:\n%s", rules)
		}
		u := l.uninstall(t)
		l.awaitReason(t, u, "1 pods")
		l.del(t, l.pods[0])
		l.awaitReason(t, u, "ok")
		l.wantClean(t)
	})
}

// TestUninstallKilled: killed at any moment, a list that names the plugin never stands without it, and the next run finishes.
func TestUninstallKilled(t *testing.T) {
	eachOf(t, testkit.Variants()[:1], func(t *testing.T, r *rig) {
		for delay := time.Duration(0); delay < 600*time.Millisecond; delay += 40 * time.Millisecond {
			l := newLeaver(t, r)
			u := l.uninstall(t)
			time.Sleep(delay)
			u.Stop(syscall.SIGKILL, patience)
			if strings.Contains(read(t, l.list), "ip-masq") && !exists(l.binary()) {
				t.Errorf("killed after %s: the list names a plugin that is not there", delay)
			}
			u = l.uninstall(t)
			l.awaitReason(t, u, "ok")
			l.wantClean(t)
			u.Stop(syscall.SIGTERM, patience)
		}
	})
}

// TestUninstallBrokenList: what only a person can repair is named, and nothing is removed that a pod may need.
func TestUninstallBrokenList(t *testing.T) {
	eachOf(t, testkit.Variants()[:1], func(t *testing.T, r *rig) {
		l := newLeaver(t, r)
		overwrite(t, filepath.Join(r.ConfDir, "20-broken.conflist"), `{"name": "x", "plugins": [{"type": "ip-masq"}`)
		u := l.uninstall(t)
		l.awaitReason(t, u, "20-broken.conflist")
		if !exists(l.binary()) {
			t.Error("the plugin is gone although a list may name it")
		}
		if err := os.Remove(filepath.Join(r.ConfDir, "20-broken.conflist")); err != nil {
			t.Fatal(err)
		}
		l.awaitReason(t, u, "ok")
		l.wantClean(t)
	})
}
