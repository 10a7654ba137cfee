package agent_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// variant is one kind of kernel rules that the agent is tested with. A further backend is one more line in variants; what is
// said of iptables alone is tested with those that are iptables.
type variant struct {
	name     string
	iptables bool
	tools    []string
	path     func(t *testing.T) string
	flags    []string // of the agent
	list     []string // prints the shared policy
	flush    []string // empties it, as a stranger would
}

var variants = []variant{
	iptablesVariant("nft"),
	iptablesVariant("legacy"),
	{
		name: "nftables", tools: []string{"nft"},
		path:  func(t *testing.T) string { return netnstest.NoIPTables(t) },
		flags: []string{"--backend=nftables"},
		list:  []string{"nft", "list", "table", "inet", "ip-masq-agent"},
		flush: []string{"nft", "flush", "chain", "inet", "ip-masq-agent", "IP-MASQ-AGENT"},
	},
}

func iptablesVariant(name string) variant {
	return variant{
		name: name, iptables: true, tools: []string{"iptables-" + name, "ip6tables-" + name},
		path:  func(t *testing.T) string { return netnstest.IPTables(t, name) },
		list:  []string{"iptables", "-t", "nat", "-S", "IP-MASQ-AGENT"},
		flush: []string{"iptables", "-t", "nat", "-F", "IP-MASQ-AGENT"},
	}
}

// rig is a node on which the built agent runs, with files of its own.
type rig struct {
	*netnstest.Node
	variant
	config string // path of the configuration file, which is not there at first
}

// each runs a test once per variant, on a node of its own.
func each(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	eachOf(t, func(variant) bool { return true }, test)
}

// eachIPTables is each for what only iptables has: listings, references, root rules.
func eachIPTables(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	eachOf(t, func(v variant) bool { return v.iptables }, test)
}

func eachOf(t *testing.T, wanted func(variant) bool, test func(t *testing.T, r *rig)) {
	t.Helper()
	t.Parallel()
	for _, v := range variants {
		if !wanted(v) {
			continue
		}
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			test(t, newRig(t, v))
		})
	}
}

func newRig(t *testing.T, v variant) *rig {
	t.Helper()
	netnstest.Require(t, v.tools...)
	r := &rig{Node: netnstest.NewNode(t), variant: v, config: filepath.Join(t.TempDir(), "ip-masq-agent")}
	r.SetPATH(v.path(t))
	return r
}

// write replaces the configuration file by a rename, as editors and installers do.
func (r *rig) write(t *testing.T, content string) {
	t.Helper()
	temp := r.config + ".tmp"
	if err := os.WriteFile(temp, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(temp, r.config); err != nil {
		t.Fatal(err)
	}
}

// command is the agent's command line for a verb on this node. Later flags win, so args may overrule the node's own.
func (r *rig) command(t *testing.T, verb string, args ...string) []string {
	t.Helper()
	line := []string{netnstest.Bin(t, "ip-masq-agent"), verb, "--config", r.config, "--state-dir", r.StateDir, "--data-dir", r.DataDir}
	if verb == "run" || verb == "sync" {
		line = append(line, "--cni-conf-dir", r.ConfDir)
	}
	return append(append(line, r.flags...), args...)
}

// agent runs one command of the agent to its end.
func (r *rig) agent(t *testing.T, verb string, args ...string) netnstest.Result {
	t.Helper()
	return r.exec(t, r.command(t, verb, args...)...)
}

func (r *rig) exec(t *testing.T, args ...string) netnstest.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	result, err := r.Exec(ctx, netnstest.Cmd{Args: args})
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, result.Stderr)
	}
	return result
}

// sync runs `sync`, which has to succeed.
func (r *rig) sync(t *testing.T, args ...string) {
	t.Helper()
	if got := r.agent(t, "sync", args...); got.Code != 0 {
		t.Fatalf("sync: exit %d\n%s", got.Code, got.Stderr)
	}
}

// rules is what the kernel holds of the shared policy, empty where it is not there.
func (r *rig) rules(t *testing.T) string {
	t.Helper()
	return r.exec(t, r.list...).Stdout
}

// nat runs iptables on table nat, which has to succeed.
func (r *rig) nat(t *testing.T, args ...string) string {
	t.Helper()
	return r.Run(t, append([]string{"iptables", "-t", "nat"}, args...)...)
}
