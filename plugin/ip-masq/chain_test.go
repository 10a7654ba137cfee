package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// everything is the host's whole ruleset, of every kind.
func (h *host) everything(t *testing.T) string {
	t.Helper()
	return h.Run(t, "sh", "-ec", "nft list ruleset; iptables-legacy-save; ip6tables-legacy-save")
}

// TestEntryWithAnotherChainBeforeTheAgent: an entry named a chain before the agent came, which has the default one. The agent's
// chain wins, every rule moves, and DELs and cleanup leave nothing of either.
func TestEntryWithAnotherChainBeforeTheAgent(t *testing.T) {
	netnstest.Require(t, "nft", "iptables-legacy-save")
	eachVariant(t, func(t *testing.T, v variant) {
		for name, lose := range map[string]string{"all on record": "true", "the choice is lost": "rm backend.json", "all is lost": "rm -r backend.json attachments"} {
			t.Run(name, func(t *testing.T) {
				h := newHost(t, v)
				entry := func(verb, container string, addresses ...string) *request {
					return h.request(verb, container, addresses...).set("masqChain", "MY-MASQ").set("enableIPv6", true)
				}
				h.must(t, entry("ADD", "a", "10.1.0.2", "fd00:1::2"))
				h.Run(t, "sh", "-ec", "cd "+h.stateDir+"; "+lose)
				h.sync(t, "", "--enable-ipv6")
				if got := h.everything(t); strings.Contains(got, "MY-MASQ") {
					t.Errorf("after a sync:\n%s", got)
				}
				h.must(t, entry("ADD", "b", "10.1.0.3", "fd00:1::3"))
				h.must(t, entry("CHECK", "a", "10.1.0.2", "fd00:1::2"))
				h.wantTable(t, policy.IPv4, h.defaultTable(policy.IPv4, podLine("10.1.0.2", "a"), podLine("10.1.0.3", "b")))
				h.wantTable(t, policy.IPv6, h.defaultTable(policy.IPv6, podLine("fd00:1::2", "a"), podLine("fd00:1::3", "b")))
				h.must(t, entry("DEL", "a"))
				h.wantTable(t, policy.IPv4, h.defaultTable(policy.IPv4, podLine("10.1.0.3", "b")))
				h.wantTable(t, policy.IPv6, h.defaultTable(policy.IPv6, podLine("fd00:1::3", "b")))
				h.cleanup(t)
				if got := h.everything(t); strings.Contains(got, "MASQ") || strings.Contains(got, "ip-masq") || strings.Contains(got, "fd00:1::") {
					t.Errorf("after cleanup:\n%s", got)
				}
			})
		}
	})
}

func (h *host) cleanup(t *testing.T) {
	t.Helper()
	r := h.exec(t, netnstest.Cmd{Args: []string{testkit.Program("ip-masq-agent"), "cleanup", "--state-dir=" + h.stateDir, "--data-dir=" + h.dataDir}})
	if r.Code != 0 {
		t.Fatalf("cleanup: exit %d\n%s", r.Code, r.Stderr)
	}
}

// TestCrowdWhileTheChainMoves: pods come and go while syncs move every rule between two chains. At the end there is one chain, with
// exactly the pods that stayed.
func TestCrowdWhileTheChainMoves(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant) {
		h := newHost(t, v)
		h.sync(t, "")
		stop := make(chan struct{})
		var agent background
		agent.start(stop, func(n int) error {
			r, err := h.Exec(t.Context(), netnstest.Cmd{Args: append(h.syncArgs(filepath.Join(filepath.Dir(h.stateDir), "config")), "--masq-chain="+[]string{"OTHER", chain}[n%2])})
			if err == nil && r.Code != 0 {
				err = fmt.Errorf("exit %d: %s", r.Code, r.Stderr)
			}
			return err
		})
		half := netnstest.Crowd(10) / 2
		turns := 0
		for ; turns < 10 || turns < 40 && agent.runs.Load() < 3; turns++ {
			first := turns * 2 * half
			h.together(t, h.crowd("ADD", first, first+2*half, false)...)
			h.together(t, h.crowd("DEL", first, first+half, false)...)
		}
		close(stop)
		agent.want(t, "sync", 3)
		h.sync(t, "", "--masq-chain="+chain)
		var want []string
		for i := range turns {
			lines, _ := crowdLines(i*2*half+half, (i+1)*2*half)
			want = append(want, lines...)
		}
		h.wantPods(t, want...)
		if got := h.everything(t); strings.Contains(got, "OTHER") {
			t.Errorf("the other chain is still there:\n%s", got)
		}
	})
}
