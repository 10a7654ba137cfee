package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m, testkit.Programs)) }

// variant is one kind of rules that the tests run against. One that is no iptables is observed through its backend.
type variant = testkit.Variant

// eachVariant runs a test once per variant, all at once.
func eachVariant(t *testing.T, test func(t *testing.T, v variant)) {
	t.Helper()
	parallel(t, testkit.Variants(), test)
}

// eachIPTables is for what only iptables can show.
func eachIPTables(t *testing.T, test func(t *testing.T, v variant)) {
	t.Helper()
	parallel(t, testkit.IPTablesVariants(), test)
}

func parallel(t *testing.T, variants []variant, test func(t *testing.T, v variant)) {
	t.Helper()
	testkit.Each(t, variants, func(t *testing.T, v variant) {
		t.Parallel()
		test(t, v)
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
	if v.IsIPTables() {
		h.SetPATH(netnstest.IPTables(t, v.Name))
	}
	return h
}

// lockFile is the host's own /run/xtables.lock.
func (h *host) lockFile() string { return filepath.Join(filepath.Dir(h.stateDir), "xtables.lock") }

// bound is what no run may exceed, whatever is wrong with the machine.
var bound = netnstest.Limit(15 * time.Second)

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
	args := []string{testkit.Program("ip-masq-agent"), "sync", "--config=" + file, "--state-dir=" + h.stateDir, "--data-dir=" + h.dataDir}
	if !h.IsIPTables() { // the host's iptables is what `auto` finds
		args = append(args, "--backend="+h.Choice)
	}
	return args
}
