package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/status"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// bare is a command without any flag but the state directory, which says where the daemon is: everything else is its business.
func (r *rig) bare(t *testing.T, verb string, args ...string) netnstest.Result {
	t.Helper()
	return r.Try(t, append([]string{testkit.Program("ip-masq-agent"), verb, "--state-dir", r.StateDir}, args...)...)
}

func (r *rig) bareStatus(t *testing.T) (s status.Status) {
	t.Helper()
	got := r.bare(t, "status", "--output=json")
	if got.Code != 0 || got.Stderr != "" {
		t.Fatalf("exit %d\n%s", got.Code, got.Stderr)
	}
	exactly(t, got.Stdout, &s)
	return s
}

// TestAskTheDaemon: with no flag, commands say what the daemon says; the socket is for root alone.
func TestAskTheDaemon(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		overwrite(t, filepath.Join(r.ConfDir, "10-pods.conflist"), conflist(network, plain))
		r.Write(t, internetKept)
		agent := r.startReady(t)
		r.attached(t, "a")
		s := r.bareStatus(t)
		d := s.Daemon
		if !d.Running || !d.Responding || d.PID == nil || *d.PID != agent.Pid || *d.Version != testkit.Version || d.Since == nil || !*d.Current ||
			d.LastSync == nil || d.LastSync.Result != status.ResultOK || d.LastSync.Error != nil {
			t.Errorf("daemon %+v", d)
		}
		if *s.Backend.Kind != r.Kind || s.Config.Path != r.Config || !s.Config.Valid || s.Config.Hash == nil || len(*s.Config.Hash) != 64 || len(s.Drift) != 0 || len(s.Pods.Attached) != 1 || s.Repairs == nil {
			t.Errorf("status %+v", s)
		}
		if p := s.Plugin; !*p.Listed || *p.Position != 2 || filepath.Base(*p.Conflist) != "10-pods.conflist" || !*p.Answers || *p.Version != testkit.Version {
			t.Errorf("plugin %+v", s.Plugin)
		}
		info, err := os.Stat(filepath.Join(r.StateDir, "agent.sock"))
		if err != nil || info.Mode() != os.ModeSocket|0o600 {
			t.Errorf("socket %v, %v", info, err)
		}
		r.Write(t, bad)
		r.eventually(t, agent, "the bad config is in status", func() bool { return !r.bareStatus(t).Config.Valid })
		if s := r.bareStatus(t); s.Policy.Origin != status.OriginFile || *s.Config.Error == "" || s.Policy.NonMasquerade[1].String() != "192.0.2.0/24" {
			t.Errorf("of a bad config: %+v", s)
		}
		text := r.bare(t, "status").Stdout
		for line := range strings.Lines(text) {
			if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > status.Width || strings.Contains(line, "\x1b") {
				t.Errorf("%d columns: %q", n, line)
			}
		}
		var fromYAML status.Status
		document, err := yaml.YAMLToJSONStrict([]byte(r.bare(t, "status", "--output=yaml").Stdout))
		if err == nil {
			err = json.Unmarshal(document, &fromYAML)
		}
		if err != nil || fromYAML.APIVersion != status.APIVersion || *fromYAML.Daemon.PID != agent.Pid {
			t.Errorf("yaml: %+v, %v", fromYAML.Daemon, err)
		}
	})
}

// TestRepairsAreListed, the newest last and ten at most, with the program that made the change where the kernel tells.
func TestRepairsAreListed(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.Write(t, "resyncInterval: 200ms\n")
		agent := r.startReady(t)
		r.attached(t, "a")
		for i := range 3 {
			r.sh(t, damagesOf(r.Variant)[i].script)
			r.eventually(t, agent, "repaired", func() bool { s := r.bareStatus(t); return s.Repairs.Total > i && len(s.Drift) == 0 })
		}
		last := r.bareStatus(t).Repairs.Last
		if len(last) < 3 || len(last) > 10 {
			t.Fatalf("%+v", last)
		}
		for i, repair := range last {
			if known := repair.By != nil && slices.Contains([]string{"nft", "iptables"}, *repair.By); known != (r.Kind != backend.IPTablesLegacy) {
				t.Errorf("%+v is by %q", repair, text(repair.By))
			}
			if repair.Object == "" || repair.Problem == "" || repair.Count < 1 || repair.Detail == "" || i > 0 && repair.Time.Before(last[i-1].Time) {
				t.Errorf("%+v", repair)
			}
		}
	})
}

// TestSyncAsksTheDaemon: the rules are repaired when the command ends, by the daemon, whose flags count.
func TestSyncAsksTheDaemon(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.Write(t, never)
		agent := r.startReady(t, "--masq-chain=OTHER")
		before := r.standing(t)
		for range 3 {
			r.sh(t, strings.ReplaceAll(damagesOf(r.Variant)[0].script, "IP-MASQ-AGENT", "OTHER"))
			if got := r.bare(t, "sync"); got.Code != 0 || got.Stderr != "" {
				t.Errorf("exit %d\n%s", got.Code, got.Stderr)
			}
			if after := r.standing(t); after != before {
				t.Errorf("after the sync\n%s\nwant\n%s", after, before)
			}
		}
		if got := r.bare(t, "sync", "--masq-chain=OTHER"); got.Code != 0 {
			t.Errorf("the daemon's own flag: exit %d\n%s", got.Code, got.Stderr)
		}
		if got := r.bare(t, "sync", "--masq-chain=THIRD"); got.Code != 1 || !strings.Contains(got.Stderr, "--masq-chain") {
			t.Errorf("another flag: exit %d\n%s", got.Code, got.Stderr)
		}
		if got := r.bare(t, "status", "--masq-chain=THIRD"); got.Code != 0 || !strings.Contains(got.Stderr, "--masq-chain had no effect") {
			t.Errorf("another flag of status: exit %d\n%s", got.Code, got.Stderr)
		}
		r.Write(t, bad)
		if got := r.bare(t, "sync"); got.Code != 1 || !strings.Contains(got.Stderr, "nonMasquerade") {
			t.Errorf("with a bad config: exit %d\n%s%s", got.Code, got.Stderr, agent.Output())
		}
	})
}

// TestDaemonThatHangs is named within two seconds, and the node is described all the same; so are a daemon that was killed, whose
// socket is there, and one that follows it.
func TestDaemonThatHangs(t *testing.T) {
	r := newRig(t, testkit.Variants()[0])
	r.Write(t, never)
	agent := r.startReady(t)
	_ = syscall.Kill(agent.Pid, syscall.SIGSTOP)
	began := time.Now()
	s := r.status(t)
	if took := time.Since(began); took > netnstest.Limit(4*time.Second) || !s.Daemon.Running || s.Daemon.Responding || s.Daemon.PID == nil || *s.Daemon.PID != agent.Pid || s.Drift == nil {
		t.Errorf("after %s: %+v", took, s.Daemon)
	}
	if got := r.Agent(t, "check"); got.Code != 1 || !strings.Contains(got.Stdout, "✗ agent-running   the agent holds its lock and does not answer") {
		t.Errorf("check: exit %d\n%s", got.Code, got.Stdout)
	}
	if got := r.Agent(t, "sync"); got.Code != 1 || !strings.Contains(got.Stderr, "it does not answer") {
		t.Errorf("sync: exit %d\n%s", got.Code, got.Stderr)
	}
	agent.Stop(syscall.SIGKILL, patience)
	if _, err := os.Lstat(filepath.Join(r.StateDir, "agent.sock")); err != nil {
		t.Errorf("a killed daemon leaves its socket: %v", err)
	}
	if s := r.status(t); s.Daemon.Running || s.Repairs != nil {
		t.Errorf("after it was killed: %+v", s.Daemon)
	}
	next := r.startReady(t)
	if s := r.status(t); s.Daemon.PID == nil || *s.Daemon.PID != next.Pid {
		t.Errorf("of the next one: %+v", s.Daemon)
	}
	next.Stop(syscall.SIGTERM, patience)
	if _, err := os.Lstat(filepath.Join(r.StateDir, "agent.sock")); err == nil {
		t.Error("a daemon that ended left its socket")
	}
}

// TestStatusWatch shows the node again until it is ended, which is no failure.
func TestStatusWatch(t *testing.T) {
	r := newRig(t, testkit.Variants()[0])
	watch := r.Start(t, netnstest.Cmd{Args: r.Command("status", "--watch")})
	r.eventually(t, watch, "shown twice", func() bool { return strings.Count(watch.Output(), "daemon      none runs") >= 2 })
	if code := watch.Stop(syscall.SIGTERM, patience); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// TestStatusOfAnotherUser: who may not ask is told so, and not that no daemon runs.
func TestStatusOfAnotherUser(t *testing.T) {
	r := newRig(t, testkit.Variants()[0])
	netnstest.Require(t, "setpriv")
	r.startReady(t)
	for dir := r.StateDir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) { // as on a real node
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	line := append([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}, r.Command("status")...)
	if got := r.Try(t, line...); !strings.Contains(got.Stderr, "run this as root") {
		t.Errorf("exit %d\n%s%s", got.Code, got.Stdout, got.Stderr)
	}
}

// TestManyAskAtOnce, while the daemon is replaced: all of them get an answer.
func TestManyAskAtOnce(t *testing.T) {
	r := newRig(t, testkit.Variants()[0])
	r.Write(t, never)
	agent := r.startReady(t)
	script := fmt.Sprintf(`for i in $(seq 30); do %s status --state-dir %s --output json > %s/out.$i & done; wait`, testkit.Program("ip-masq-agent"), r.StateDir, t.TempDir())
	done := make(chan netnstest.Result, 1)
	go func() { done <- r.Try(t, "sh", "-c", script+" && echo all") }()
	time.Sleep(50 * time.Millisecond)
	agent.Stop(syscall.SIGTERM, patience)
	r.startReady(t)
	if got := <-done; !strings.Contains(got.Stdout, "all") || got.Stderr != "" {
		t.Errorf("%s%s", got.Stdout, got.Stderr)
	}
}

// TestStatusOfPods: by name where the runtime gave one, uncovered where only the runtime knows it, and opted out.
func TestStatusOfPods(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		overwrite(t, filepath.Join(r.ConfDir, "10-pods.conflist"), conflist(network, plain))
		r.attached(t, "a")
		out := r.newPod(t, "b")
		if got := r.plugin(t, "ADD", out, `"masquerade": false`); got.Code != 0 {
			t.Fatalf("ADD: %s", got.Stdout)
		}
		only := r.newPod(t, "c")
		cached := fmt.Sprintf(`{"kind": "cniCacheV1", "containerId": "c", "ifName": "eth0", "networkName": %q, "netns": %q, "cniArgs": [["K8S_POD_NAMESPACE", "default"], ["K8S_POD_NAME", "web-0"]], "result": %s}`,
			network, only.Path, only.result())
		results := filepath.Join(r.CacheDir, "results")
		if s := r.status(t); s.Pods.Uncovered != nil {
			t.Errorf("without a cache: %+v", s.Pods)
		}
		if err := os.MkdirAll(results, 0o755); err != nil {
			t.Fatal(err)
		}
		overwrite(t, filepath.Join(results, network+"-c-eth0"), cached)
		s := r.status(t)
		if len(s.Pods.Attached) != 1 || len(s.Pods.OptedOut) != 1 || s.Pods.OptedOut[0].ContainerID != "b" || len(s.Pods.Uncovered) != 1 || *s.Pods.Uncovered[0].Name != "web-0" {
			t.Errorf("%+v", s.Pods)
		}
		if text := r.Agent(t, "status").Stdout; !strings.Contains(text, "default/web-0") || !strings.Contains(text, "1 attached, 1 uncovered, 1 opted out") {
			t.Errorf("text:\n%s", text)
		}
		r.Sync(t)
		if s := r.status(t); len(s.Pods.Uncovered) != 0 || len(s.Pods.Attached) != 2 {
			t.Errorf("after a sync: %+v", s.Pods)
		}
	})
}

// TestCheck goes from a node where all is well through what can be wrong with it: which answer changes, and the exit status.
func TestCheck(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		list := filepath.Join(r.ConfDir, "10-pods.conflist")
		overwrite(t, list, conflist(network, plain))
		if err := os.MkdirAll(filepath.Join(r.CacheDir, "results"), 0o755); err != nil {
			t.Fatal(err)
		}
		r.Write(t, never)
		r.attached(t, "a")
		agent := r.startReady(t)
		r.wantChecks(t, "all is well", 0)
		r.sh(t, "echo 0 > /proc/sys/net/ipv4/ip_forward")
		r.wantChecks(t, "no forwarding", 1, "ip-forward fail")
		r.sh(t, "echo 1 > /proc/sys/net/ipv4/ip_forward")
		overwrite(t, list, conflist(network, ""))
		r.wantChecks(t, "not in the conflist", 1, "plugin-listed fail")
		overwrite(t, list, conflist(network, plain))
		r.Write(t, bad)
		r.eventually(t, agent, "bad", func() bool { return !r.bareStatus(t).Config.Valid })
		r.wantChecks(t, "a bad config", 1, "config-valid fail")
		r.Write(t, never)
		r.eventually(t, agent, "good", func() bool { return r.bareStatus(t).Config.Valid })
		agent.Stop(syscall.SIGTERM, patience)
		r.wantChecks(t, "no daemon", 1, "agent-running fail", "agent-current warn")
		r.sh(t, damagesOf(r.Variant)[0].script)
		r.wantChecks(t, "damaged", 1, "agent-running fail", "agent-current warn", "kernel-equal fail")
	})
}

// wantChecks compares the questions that are not answered with ok.
func (r *rig) wantChecks(t *testing.T, when string, code int, want ...string) {
	t.Helper()
	got := r.Agent(t, "check", "--output=json")
	var checks status.Checks
	exactly(t, got.Stdout, &checks)
	var answers []string
	for _, c := range checks.Checks {
		if c.Status != status.OK {
			answers = append(answers, c.ID+" "+c.Status)
		}
		if (c.Fix == nil) != (c.Status == status.OK) || c.Message == "" {
			t.Errorf("%s: %+v", when, c)
		}
	}
	if got.Code != code || strings.Join(answers, ", ") != strings.Join(want, ", ") || len(checks.Checks) < 12 {
		t.Errorf("%s: exit %d, %q, want %d, %q\n%s", when, got.Code, answers, code, want, r.Agent(t, "check").Stdout)
	}
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
