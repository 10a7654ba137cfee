package soak

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/backend/registry"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// run is one node and what happens to it. Everything random is drawn from rng by the test's own goroutine, before anything of
// a round runs, so that what happens depends on the seed alone; only how it interleaves does not.
type run struct {
	*testing.T
	*netnstest.Space
	StateDir, DataDir, CacheDir, ConfDir, config string
	tmpfs                                        string // the small file system that holds the first two

	rng     *rand.Rand
	variant string // nft or legacy: the host's iptables
	agent   *netnstest.Process
	logs    []*netnstest.Process
	round   int
	serial  int
	done    tally

	mu     sync.Mutex // over what follows, while a round runs
	model  model
	broken map[string]*pod // what the runtime must still delete
	events []string
}

// tally counts what happened.
type tally map[string]int

// network is the one that all pods are in.
const network = "pods"

// roomOnDisk is the size of the file system for state and data.
const roomOnDisk = "512k"

func newRun(t *testing.T, rng *rand.Rand) *run {
	t.Helper()
	dir := t.TempDir()
	r := &run{
		T: t, Space: netnstest.NewSpace(t, "soak"), rng: rng, done: tally{}, broken: map[string]*pod{},
		tmpfs: filepath.Join(dir, "small"), CacheDir: filepath.Join(dir, "cache"), ConfDir: filepath.Join(dir, "net.d"), config: filepath.Join(dir, "config"),
		model: model{backend: "iptables", keep: []string{"10.0.0.0/8", "172.16.0.0/12", "fc00::/7"}, pods: map[string]*pod{}},
	}
	r.StateDir, r.DataDir = filepath.Join(r.tmpfs, "state"), filepath.Join(r.tmpfs, "data")
	for _, d := range []string{r.tmpfs, r.ConfDir, filepath.Join(r.CacheDir, "results")} {
		if err := os.Mkdir(filepath.Dir(d), 0o755); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("soak", r.tmpfs, "tmpfs", 0, "size="+roomOnDisk); err != nil {
		t.Fatal(err)
	}
	netnstest.OnExit(t, func() { _ = unix.Unmount(r.tmpfs, unix.MNT_DETACH) })
	r.variant = netnstest.Variants()[rng.IntN(2)]
	r.Env = append(r.Env, "XTABLES_LOCKFILE="+r.xtablesLock())
	r.SetPATH(netnstest.IPTables(t, r.variant))
	r.write(filepath.Join(r.ConfDir, "10-pods.conflist"), fmt.Sprintf(`{"cniVersion": "1.1.0", "name": %q, "plugins": [{"type": "bridge"}, {"type": "ip-masq"}]}`, network))
	r.write(r.config, r.model.config())
	r.startAgent()
	return r
}

func (r *run) xtablesLock() string { return filepath.Join(filepath.Dir(r.tmpfs), "xtables.lock") }

func (r *run) write(path, text string) {
	r.Helper()
	if err := os.WriteFile(path+".tmp", []byte(text), 0o644); err != nil {
		r.Fatal(err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		r.Fatal(err)
	}
}

// canSwitch reports whether there is more than one explicit backend.
func canSwitch() bool { return len(registry.Choices()) > 2 }

// command is the agent's command line under the model's flags.
func (r *run) command(verb string, args ...string) []string {
	line := []string{
		testkit.Program("ip-masq-agent"), verb, "--config", r.config, "--state-dir", r.StateDir, "--data-dir", r.DataDir,
		"--cni-cache-dir", r.CacheDir, "--cni-conf-dir", r.ConfDir,
		"--backend", r.model.backend, fmt.Sprintf("--enable-ipv6=%v", r.model.ipv6),
	}
	return append(line, args...)
}

func (r *run) startAgent() {
	r.Helper()
	r.agent = r.Start(r.T, netnstest.Cmd{Args: r.command("run", "--metrics-bind-address=")})
	r.logs = append(r.logs, r.agent)
}

// stopAgent ends the daemon by a signal that it may or may not catch.
func (r *run) stopAgent(sig syscall.Signal) { r.agent.Stop(sig, 20*time.Second) }

// bound is what no command may exceed. The plugin's own is 15 s, and the machine may be busy.
var bound = netnstest.Limit(40 * time.Second)

func (r *run) exec(c netnstest.Cmd) netnstest.Result {
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	result, err := r.Exec(ctx, c)
	if err != nil {
		r.Errorf("%v: %v", c.Args, err)
	}
	return result
}

func (r *run) output(args ...string) string {
	if result := r.exec(netnstest.Cmd{Args: args}); result.Code == 0 {
		return result.Stdout
	}
	return ""
}

// note keeps what happened for the report of a failure.
func (r *run) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, fmt.Sprintf("%3d: ", r.round)+fmt.Sprintf(format, args...))
}

func (r *run) history() string {
	return strings.Join(r.events[max(0, len(r.events)-60):], "\n")
}

// log is the end of what the last daemons logged.
func (r *run) log() string {
	var text string
	for _, p := range r.logs[max(0, len(r.logs)-3):] {
		text += p.Output()
	}
	return text[max(0, len(text)-6000):]
}

// settle is how long a daemon may take for what it began before the node came to rest, and what is left to its next resync.
const settle = 10 * time.Second

// rest deletes what a runtime would delete, and compares: when the daemon had time, and after a SIGHUP. Under a bad config the
// daemon may have forgotten the interval, so there it is the SIGHUP alone.
func (r *run) rest() {
	r.Helper()
	for name, p := range r.broken {
		if got := r.plugin("DEL", p); got.Code != 0 {
			r.Errorf("round %d: DEL %s on a node at rest: %s%s", r.round, name, got.Stdout, got.Stderr)
		}
		r.forget(p)
	}
	clear(r.broken)
	if !r.model.bad {
		r.compare("by the daemon")
	}
	want := 0
	if r.model.bad {
		want = 1 // the daemon says what is wrong with it
	}
	if sync := r.exec(netnstest.Cmd{Args: r.command("sync")}); sync.Code != want {
		r.Errorf("round %d: sync by the daemon: exit %d\n%s", r.round, sync.Code, sync.Stderr)
	}
	if err := r.agent.Signal(syscall.SIGHUP); err != nil {
		r.Errorf("round %d: SIGHUP: %v", r.round, err)
	}
	r.compare("after SIGHUP")
	r.checkOne()
}

// compare fails unless kernel and model become equal.
func (r *run) compare(when string) {
	r.Helper()
	diff, end := "", time.Now().Add(settle)
	for {
		if diff = cmp.Diff(r.model.want(), r.kernel()); diff == "" {
			return
		}
		if time.Now().After(end) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	r.Errorf("round %d, %s: -model +kernel:\n%s", r.round, when, diff)
}

// checkOne asks CHECK about one pod that is there.
func (r *run) checkOne() {
	for name, p := range r.model.pods {
		if got := r.plugin("CHECK", p); got.Code != 0 {
			r.Errorf("round %d: CHECK %s: %s", r.round, name, got.Stdout)
		}
		return
	}
}

func (t tally) String() string {
	var parts []string
	for _, a := range actions {
		parts = append(parts, fmt.Sprintf("%s %d", a.name, t[a.name]))
	}
	return strings.Join(parts, ", ")
}
