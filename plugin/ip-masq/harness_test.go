package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// The programs under test, built once: what these tests run is what a runtime runs.
var program, agentProgram string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ip-masq-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	program, agentProgram = filepath.Join(dir, "ip-masq"), filepath.Join(dir, "ip-masq-agent")
	for target, source := range map[string]string{program: ".", agentProgram: "../../cmd/ip-masq-agent"} {
		build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", target, source)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build %s: %v\n%s", source, err, out)
			return 1
		}
	}
	return m.Run()
}

// variant is one kind of rules that the tests run against.
type variant struct {
	name    string
	kind    backend.Kind
	backend string // the key "backend"; empty leaves it out
	tools   []string
}

// variants hold everything to the same tests. One that is no iptables is observed through its backend.
var variants = []variant{
	{name: "nft", kind: backend.IPTablesNFT, tools: []string{"iptables-nft", "ip6tables-nft"}},
	{name: "legacy", kind: backend.IPTablesLegacy, tools: []string{"iptables-legacy", "ip6tables-legacy"}},
	{name: "nftables", kind: backend.NFTables, backend: "nftables", tools: []string{"nft"}},
}

func (v variant) isIPTables() bool { return v.kind != backend.NFTables }

// eachVariant runs a test once per variant, all at once.
func eachVariant(t *testing.T, test func(t *testing.T, v variant)) {
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			netnstest.Require(t, v.tools...)
			t.Parallel()
			test(t, v)
		})
	}
}

// eachIPTables is for what only iptables can show.
func eachIPTables(t *testing.T, test func(t *testing.T, v variant)) {
	eachVariant(t, func(t *testing.T, v variant) {
		if v.isIPTables() {
			test(t, v)
		}
	})
}

// host is a machine as the plugin sees it: a network namespace, directories of its own, and one variant of iptables. One more
// namespace stands for all its pods, because the plugin never looks into them.
type host struct {
	*netnstest.Space
	variant
	pod               *netnstest.Space
	stateDir, dataDir string
	through           []string // what the plugin is started by; nil: directly
}

func newHost(t *testing.T, v variant) *host {
	t.Helper()
	h := &host{Space: netnstest.NewSpace(t, "host"), pod: netnstest.NewSpace(t, "pod"), variant: v}
	dir := t.TempDir()
	h.stateDir, h.dataDir = filepath.Join(dir, "state"), filepath.Join(dir, "data")
	h.Env = append(h.Env, "XTABLES_LOCKFILE="+h.lockFile())
	if v.isIPTables() {
		h.SetPATH(netnstest.IPTables(t, v.name))
	}
	return h
}

// lockFile is the host's own /run/xtables.lock.
func (h *host) lockFile() string { return filepath.Join(filepath.Dir(h.stateDir), "xtables.lock") }

// bound is what no run may exceed, whatever is wrong with the machine.
const bound = 15 * time.Second

// exec runs a command on the host, however it ends.
func (h *host) exec(t *testing.T, c netnstest.Cmd) netnstest.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*bound)
	defer cancel()
	r, err := h.Exec(ctx, c)
	if err != nil {
		t.Fatalf("%v: %v\n%s%s", c.Args, err, r.Stdout, r.Stderr)
	}
	return r
}

// sync runs the agent's one-shot reconciliation with a configuration; empty text is the default policy.
func (h *host) sync(t *testing.T, config string, flags ...string) {
	t.Helper()
	file := filepath.Join(filepath.Dir(h.stateDir), "config")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	r := h.exec(t, netnstest.Cmd{Args: append(h.syncArgs(file), flags...)})
	if r.Code != 0 {
		t.Fatalf("sync: exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
}

func (h *host) syncArgs(file string) []string {
	args := []string{agentProgram, "sync", "--config=" + file, "--state-dir=" + h.stateDir, "--data-dir=" + h.dataDir}
	if h.backend != "" {
		args = append(args, "--backend="+h.backend)
	}
	return args
}
