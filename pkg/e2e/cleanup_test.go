package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// furnish leaves everything that a node can have of this project: both families, a custom chain, records, marks of deleted pods, and
// what agents before us left in the other kinds of rules.
func (r *rig) furnish(t *testing.T) *pod {
	t.Helper()
	r.Write(t, never)
	r.Sync(t, "--enable-ipv6", "--masq-chain=CUSTOM")
	p, gone := r.attached(t, "a"), r.attached(t, "gone")
	if got := r.plugin(t, "DEL", gone); got.Code != 0 {
		t.Fatal(got.Stdout)
	}
	r.wantSeen(t, p, nodeAddress)
	for _, program := range []string{"iptables-nft-restore", "iptables-legacy-restore"} {
		r.sh(t, formerRules(former[0].chain, former[0].jump, program))
	}
	return p
}

// wantNothing fails unless everything of this project is gone, except lock files.
func (r *rig) wantNothing(t *testing.T, p *pod) {
	t.Helper()
	if rules := r.rules(t); rules != "" {
		t.Errorf("still there:\n%s", rules)
	}
	for _, dir := range []string{r.StateDir, r.DataDir} {
		files, _ := os.ReadDir(dir)
		for _, f := range files {
			if !strings.Contains(f.Name(), "lock") {
				t.Errorf("still there: %s", filepath.Join(dir, f.Name()))
			}
		}
	}
	r.wantSeen(t, p, p.Addrs[0].String())
}

func TestCleanup(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		p := r.furnish(t)
		for i, warns := range []string{"ip-masq-agent: attached pods that lose masquerading: 1;", ""} { // the second finds nothing
			got := r.Agent(t, "cleanup")
			if got.Code != 0 || got.Stdout != "" || !strings.HasPrefix(got.Stderr, warns) || (warns == "") != (got.Stderr == "") {
				t.Errorf("cleanup %d: exit %d\n%s", i, got.Code, got.Stderr)
			}
			r.wantNothing(t, p)
		}
		again := r.attached(t, "again") // and the node is as new
		r.wantSeen(t, again, nodeAddress)
	})
}

// TestCleanupMayBeKilled: at one moment after the other, and the next one finishes.
func TestCleanupMayBeKilled(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		for delay := time.Millisecond; ; delay += 14 * time.Millisecond {
			p := r.furnish(t)
			cleanup := r.Start(t, netnstest.Cmd{Args: r.Command("cleanup")})
			time.Sleep(delay)
			code := cleanup.Stop(syscall.SIGKILL, patience)
			if got := r.Agent(t, "cleanup"); got.Code != 0 {
				t.Fatalf("after a kill at %s: exit %d\n%s", delay, got.Code, got.Stderr)
			}
			r.wantNothing(t, p)
			p.Remove()
			if code == 0 {
				t.Logf("was done after %s", delay)
				return
			}
		}
	})
}

func TestCleanupRefusesWhileAnAgentRuns(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		agent := r.startReady(t)
		want := r.standing(t)
		got := r.Agent(t, "cleanup")
		if got.Code != 1 || !strings.Contains(got.Stderr, "process "+strconv.Itoa(agent.Pid)) {
			t.Errorf("exit %d\n%s", got.Code, got.Stderr)
		}
		if r.standing(t) != want {
			t.Errorf("it changed the rules:\n%s", r.standing(t))
		}
	})
}

// TestCleanupKeepsOtherSoftware: rules that other software put into our chains, or that jump there, are named and stay; our own
// rules are removed all the same.
func TestCleanupKeepsOtherSoftware(t *testing.T) {
	for name, c := range map[string]struct{ script, named, undo string }{
		"a rule in the shared chain": {
			"iptables -w -t nat -I IP-MASQ-AGENT -s 10.9.9.9 -j ACCEPT",
			"-A IP-MASQ-AGENT -s 10.9.9.9/32 -j ACCEPT", "iptables -w -t nat -D IP-MASQ-AGENT -s 10.9.9.9 -j ACCEPT",
		},
		"a rule in the pods' chain": {
			"iptables -w -t nat -I IP-MASQ-AGENT-PODS -s 10.9.9.9 -j ACCEPT",
			"-A IP-MASQ-AGENT-PODS -s 10.9.9.9/32 -j ACCEPT", "iptables -w -t nat -D IP-MASQ-AGENT-PODS -s 10.9.9.9 -j ACCEPT",
		},
		"a jump in POSTROUTING": {
			"iptables -w -t nat -I POSTROUTING -s 10.9.9.9 -j IP-MASQ-AGENT",
			"-A POSTROUTING -s 10.9.9.9/32 -j IP-MASQ-AGENT", "iptables -w -t nat -D POSTROUTING -s 10.9.9.9 -j IP-MASQ-AGENT",
		},
		"a jump in a chain of theirs": {
			"iptables -w -t nat -N THEIRS && iptables -w -t nat -A THEIRS -j IP-MASQ-AGENT",
			"", "iptables -w -t nat -F THEIRS && iptables -w -t nat -X THEIRS",
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachIPTables(t, func(t *testing.T, r *rig) {
				p := r.attached(t, "a")
				r.Sync(t)
				r.sh(t, c.script)
				for i := range 2 {
					got := r.Agent(t, "cleanup")
					if got.Code != 1 || !strings.Contains(got.Stderr, c.named) || !strings.Contains(got.Stderr, "rules of other software") {
						t.Errorf("cleanup %d: exit %d\n%s", i, got.Code, got.Stderr)
					}
					rules := r.rules(t)
					if strings.Contains(rules, "ip-masq-agent:") || strings.Contains(rules, "ipmasq v1") {
						t.Errorf("rules that cleanup left:\n%s", rules)
					}
					if !strings.Contains(rules, c.named) {
						t.Errorf("theirs is gone:\n%s", rules)
					}
				}
				r.wantSeen(t, p, p.Addrs[0].String())
				r.sh(t, c.undo)
				if got := r.Agent(t, "cleanup"); got.Code != 0 {
					t.Errorf("without theirs: exit %d\n%s", got.Code, got.Stderr)
				}
				r.wantNothing(t, p)
			})
		})
	}
}
