package testkit

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// Rig is a node on which the built agent runs, with a configuration file of its own. Its package's TestMain builds Programs.
type Rig struct {
	*netnstest.Node
	Variant
	Config string // path of the configuration file, which is empty at first: all is default
	Auto   bool   // the agent finds out by itself which variant the node uses
}

// NewRig makes a node whose PATH is the variant's, and an agent that is told to use the variant.
func NewRig(t *testing.T, v Variant) *Rig {
	t.Helper()
	netnstest.Require(t, v.Tools...)
	r := &Rig{Node: netnstest.NewNode(t), Variant: v, Config: filepath.Join(t.TempDir(), "ip-masq-agent")}
	r.SetPATH(v.Path(t))
	r.Write(t, "")
	return r
}

// Write replaces the configuration file by a rename, as editors and installers do.
func (r *Rig) Write(t *testing.T, content string) {
	t.Helper()
	temp := r.Config + ".tmp"
	err := os.WriteFile(temp, []byte(content), 0o644)
	if err == nil {
		err = os.Rename(temp, r.Config)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Command is the agent's command line for a verb on this node. Later flags win, so args may overrule the node's own.
func (r *Rig) Command(verb string, args ...string) []string {
	line := []string{Program("ip-masq-agent"), verb, "--config", r.Config, "--state-dir", r.StateDir, "--data-dir", r.DataDir}
	if slices.Contains([]string{"run", "sync", "status", "check"}, verb) {
		line = append(line, "--cni-cache-dir", r.CacheDir, "--cni-conf-dir", r.ConfDir, "--cni-bin-dir", Built())
	}
	if !r.Auto {
		line = append(line, "--backend", r.Choice)
	}
	return append(line, args...)
}

// Agent runs one command of the agent to its end.
func (r *Rig) Agent(t *testing.T, verb string, args ...string) netnstest.Result {
	t.Helper()
	return r.Try(t, r.Command(verb, args...)...)
}

// Try runs a command on the node, however it ends.
func (r *Rig) Try(t *testing.T, args ...string) netnstest.Result {
	t.Helper()
	return r.TryCmd(t, netnstest.Cmd{Args: args})
}

// TryCmd is Try for a command with an input or an environment.
func (r *Rig) TryCmd(t *testing.T, c netnstest.Cmd) netnstest.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), netnstest.Limit(60*time.Second))
	defer cancel()
	result, err := r.Exec(ctx, c)
	if err != nil {
		t.Fatalf("%v: %v\n%s%s", c.Args, err, result.Stdout, result.Stderr)
	}
	return result
}

// Sync runs `sync`, which has to succeed.
func (r *Rig) Sync(t *testing.T, args ...string) {
	t.Helper()
	if got := r.Agent(t, "sync", args...); got.Code != 0 {
		t.Fatalf("sync: exit %d\n%s", got.Code, got.Stderr)
	}
}
