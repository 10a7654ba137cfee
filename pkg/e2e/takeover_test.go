package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/registry"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// former are the agents before us, as they leave a node: the chain's name, and the comment of the jump to it.
var former = []struct {
	name, chain, jump string
	flags             []string
}{
	{"Kubernetes' agent", "IP-MASQ-AGENT", "ip-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom IP-MASQ-AGENT chain", nil},
	{"its releases up to v2.10, and Azure's agent", "IP-MASQ-AGENT", `\"ip-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom IP-MASQ-AGENT chain\"`, nil},
	{"GKE's", "IP-MASQ", "ip-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom IP-MASQ chain", []string{"--masq-chain=IP-MASQ"}},
}

// formerRules is what such an agent restores.
func formerRules(chain, jump string, program string) string {
	const local = "ip-masq-agent: local traffic is not subject to MASQUERADE"
	rules := []string{"*nat", ":" + chain + " - [0:0]"}
	for _, cidr := range []string{"169.254.0.0/16", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"} {
		rules = append(rules, fmt.Sprintf(`-A %s -d %s -m comment --comment "%s" -j RETURN`, chain, cidr, local))
	}
	rules = append(rules,
		fmt.Sprintf(`-A %s -m comment --comment "ip-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)" -j MASQUERADE --random-fully`, chain),
		fmt.Sprintf(`-A POSTROUTING -m comment --comment "%s" -m addrtype ! --dst-type LOCAL -j %s`, jump, chain),
		"COMMIT")
	return fmt.Sprintf("%s --noflush <<'EOF'\n%s\nEOF", program, strings.Join(rules, "\n"))
}

// theirs are words that only a former agent's rules have.
var theirs = []string{"local traffic is not subject", "must be last in chain"}

// oldRules lists what is left of a former agent, in every kind of rules.
func (r *rig) oldRules(t *testing.T) (left []string) {
	t.Helper()
	for line := range strings.Lines(r.rules(t)) {
		for _, word := range theirs {
			if strings.Contains(line, word) {
				left = append(left, line)
			}
		}
	}
	return left
}

// TestTakeOver: the first start takes over from every former agent, whichever iptables that one used, and every connection
// of a stream goes on being masqueraded.
func TestTakeOver(t *testing.T) {
	for _, f := range former {
		for _, program := range []string{"iptables-nft-restore", "iptables-legacy-restore"} {
			t.Run(f.name+" by "+program, func(t *testing.T) {
				each(t, func(t *testing.T, r *rig) {
					r.Sync(t, f.flags...) // what the node's rules are is decided
					r.sh(t, formerRules(f.chain, f.jump, program))
					p := r.newPod(t, "a")
					s := r.talk(t, p)
					r.startReady(t, append(f.flags, "--sources=all")...)
					s.wantOnly(t, nodeAddress)
					if left := r.oldRules(t); len(left) > 0 {
						t.Errorf("left of the former agent:\n%s", strings.Join(left, ""))
					}
					if roots := strings.Count(r.rules(t), "-j "+f.chain+"\n"); r.IsIPTables() && roots != 1 || !r.IsIPTables() && roots != 0 {
						t.Errorf("%d jumps to the chain:\n%s", roots, r.rules(t))
					}
				})
			})
		}
	}
}

// TestTakeOverByPods: pods that the former agent served are found in the runtime's cache and lose no packet either.
func TestTakeOverByPods(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		f := former[0]
		r.sh(t, formerRules(f.chain, f.jump, "iptables-restore -w"))
		overwrite(t, filepath.Join(r.ConfDir, "10-pods.conflist"), conflist(network, plain))
		p := r.newPod(t, "a")
		r.cache(t, p)
		s := r.talk(t, p)
		r.startReady(t)
		s.wantOnly(t, nodeAddress)
		if left := r.oldRules(t); len(left) > 0 || !r.hasRule(t, p) {
			t.Errorf("left of the former agent: %v\n%s", left, r.standing(t))
		}
	})
}

// TestTakeOverOfIPv6: an agent that is told to leave IPv6 alone leaves nothing of a former one's there.
func TestTakeOverOfIPv6(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.sh(t, strings.NewReplacer("169.254.0.0/16", "fe80::/10", "10.0.0.0/8", "fc00::/8", "172.16.0.0/12", "fd00::/9", "192.168.0.0/16", "fd80::/9").
			Replace(formerRules(former[0].chain, former[0].jump, "ip6tables-restore -w")))
		r.Sync(t)
		if rules := r.rules(t); strings.Contains(rules, "ip6tables") {
			t.Errorf("IPv6 is off, and there is\n%s", rules)
		}
	})
}

// TestFormerChain: a new --masq-chain replaces the one before, under a stream.
func TestFormerChain(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.Sync(t, "--masq-chain=BEFORE", "--enable-ipv6")
		p := r.attached(t, "a")
		s := r.talk(t, p)
		r.Sync(t, "--masq-chain=IP-MASQ-AGENT")
		s.wantOnly(t, nodeAddress)
		if rules := r.rules(t); strings.Contains(rules, "BEFORE") || !strings.Contains(rules, string(p.ID())) {
			t.Errorf("after the change of name:\n%s", rules)
		}
	})
}

// TestBackendSwitch goes from every explicit backend to every other, also together with a new name, under a stream.
func TestBackendSwitch(t *testing.T) {
	for _, flags := range [][]string{nil, {"--masq-chain=AFTER"}} {
		t.Run(strings.Join(flags, " "), func(t *testing.T) {
			each(t, func(t *testing.T, r *rig) {
				switched := false
				for _, to := range testkit.Variants() {
					if to.Choice == r.Choice || registry.Choice(to.Choice) == registry.Auto || switched {
						continue
					}
					switched = true
					p := r.attached(t, "a")
					r.Sync(t)
					s := r.talk(t, p)
					from := r.as(r.Variant)
					r = r.as(to)
					r.startReady(t, flags...)
					s.wantOnly(t, nodeAddress)
					if got := r.status(t); *got.Backend.Kind != to.Kind && to.Kind == backend.NFTables || len(got.Drift) > 0 {
						t.Errorf("status says %+v", got)
					}
					if left := from.standing(t); left != "" {
						t.Errorf("left of %s:\n%s", from.Name, left)
					}
					if late := r.attached(t, "late"); seenAs(late.Pod, r.Internet.IPv4) != nodeAddress {
						t.Errorf("a pod of after the switch is not masqueraded")
					}
				}
			})
		})
	}
}
