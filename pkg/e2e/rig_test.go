package e2e

import (
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// patience is for what has to happen at all; a loaded machine may take a while.
var patience = netnstest.Limit(15 * time.Second)

// never is an interval between resyncs that no test waits for.
const never = "resyncInterval: 1h\n"

// rig is a node on which the built programs run. Where they use nftables the node has an iptables too, as most have.
type rig struct{ *testkit.Rig }

func newRig(t *testing.T, v testkit.Variant) *rig {
	t.Helper()
	r := &rig{testkit.NewRig(t, v)}
	if !v.IsIPTables() {
		r.SetPATH(netnstest.IPTables(t, "nft"))
	}
	return r
}

// as is the same node, of which another variant is expected.
func (r *rig) as(v testkit.Variant) *rig {
	other := *r.Rig
	other.Variant = v
	return &rig{&other}
}

func overwrite(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) sh(t *testing.T, script string) string {
	t.Helper()
	return r.Run(t, "sh", "-ec", script)
}

// startReady runs the daemon until the test ends, and waits for its rules.
func (r *rig) startReady(t *testing.T, args ...string) *netnstest.Process {
	t.Helper()
	agent := r.Start(t, netnstest.Cmd{Args: r.Command("run", args...)})
	r.eventually(t, agent, "ready", func() bool { status, _ := r.Probe("/readyz"); return status == http.StatusOK })
	return agent
}

// eventually is netnstest.Eventually that shows rules and log when it fails. It returns how long it took.
func (r *rig) eventually(t *testing.T, agent *netnstest.Process, what string, ok func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) > patience {
			t.Fatalf("not within %s: %s\n%s\n%s", patience, what, r.standing(t), agent.Output())
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(begin)
}

// counters are in some listings of nftables, and handles in none.
var counters = regexp.MustCompile(`counter packets \d+ bytes \d+ ?`)

// standing is our rules in the kernel, line by line. Chains and rules of different owners have no order; the rules of the
// shared chain do, and are one line.
func (r *rig) standing(t *testing.T) string {
	t.Helper()
	if !r.IsIPTables() {
		return counters.ReplaceAllString(r.Try(t, "nft", "list", "table", "inet", "ip-masq-agent").Stdout, "")
	}
	var lines, shared []string
	for line := range strings.Lines(r.Run(t, "iptables", "-w", "-t", "nat", "-S")) {
		switch {
		case strings.HasPrefix(line, "-A IP-MASQ-AGENT "):
			shared = append(shared, line)
		case strings.Contains(line, "IP-MASQ-AGENT"):
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return strings.Join(append(lines, shared...), "")
}

// rules are all of them that are not the kernel's own: what must be left of nothing.
func (r *rig) rules(t *testing.T) string {
	t.Helper()
	var lines []string
	for _, program := range []string{"iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"} {
		for line := range strings.Lines(r.Run(t, program, "-t", "nat")) {
			if strings.HasPrefix(line, "-A") || strings.HasSuffix(line, "- [0:0]\n") {
				lines = append(lines, program+": "+line)
			}
		}
	}
	if out := r.Try(t, "nft", "list", "table", "inet", "ip-masq-agent"); out.Code == 0 {
		lines = append(lines, out.Stdout)
	}
	return strings.Join(lines, "")
}

// quiesce lets a few short resyncs go by, after which an agent that may remember that nothing changes does.
func (r *rig) quiesce(t *testing.T) {
	t.Helper()
	before := r.standing(t)
	time.Sleep(time.Second)
	if after := r.standing(t); after != before {
		t.Fatalf("the rules change by themselves:\n%s\n%s", before, after)
	}
}
