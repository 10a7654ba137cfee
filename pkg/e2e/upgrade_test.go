package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// release is one of the two whose programs meet on a node.
type release struct{ plugin, agent string }

func releases(t *testing.T) (previous, present release) {
	t.Helper()
	return release{testkit.PreviousProgram(t, "ip-masq"), testkit.PreviousProgram(t, "ip-masq-agent")},
		release{testkit.Program("ip-masq"), testkit.Program("ip-masq-agent")}
}

// call runs the plugin of a release, which has to succeed.
func (r *rig) call(t *testing.T, by release, verb string, p *pod) {
	t.Helper()
	stdin := fmt.Sprintf(`{"cniVersion": "1.1.0", "name": %q, "type": "ip-masq", "stateDir": %q, "dataDir": %q, "backend": %q, "prevResult": %s}`,
		p.Network, r.StateDir, r.DataDir, r.Choice, p.result())
	got := r.TryCmd(t, netnstest.Cmd{Args: []string{by.plugin}, Stdin: stdin, Env: []string{
		"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + p.ContainerID, "CNI_IFNAME=" + p.IfName, "CNI_NETNS=" + p.Path, "CNI_PATH=/opt/cni/bin",
	}})
	if got.Code != 0 {
		t.Fatalf("%s of %s by %s: %s%s", verb, p.ContainerID, by.plugin, got.Stdout, got.Stderr)
	}
}

// commandOf is a command line that both releases know.
func (r *rig) commandOf(by release, verb string, args ...string) []string {
	return append([]string{by.agent, verb, "--config", r.Config, "--state-dir", r.StateDir, "--data-dir", r.DataDir, "--backend", r.Choice}, args...)
}

// run starts the agent of a release and waits for its rules.
func (r *rig) run(t *testing.T, by release) *netnstest.Process {
	t.Helper()
	agent := r.Start(t, netnstest.Cmd{Args: r.commandOf(by, "run", "--cni-cache-dir", r.CacheDir, "--cni-conf-dir", r.ConfDir)})
	r.eventually(t, agent, "ready", func() bool { status, _ := r.Probe("/readyz"); return status == http.StatusOK })
	return agent
}

// excepted is a file that both releases know, whose exception this one counts on nftables as well.
const excepted = "masqueradeCIDRs: [172.16.9.0/24]\n"

// TestUpgradeAndRollBack: the programs of two releases follow each other on a node, as a rolling update or its roll-back brings them:
// in either order of plugin and agent, with pods added by one and deleted by the other. No connection of a pod has another address
// than the policy's meanwhile, and nothing is left in the end.
func TestUpgradeAndRollBack(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		previous, present := releases(t)
		for _, way := range []struct {
			name     string
			from, to release
		}{{"upgrade", previous, present}, {"rollback", present, previous}} {
			r.Write(t, excepted)
			early, late := r.newPod(t, way.name+"-early"), r.newPod(t, way.name+"-late")
			r.call(t, way.from, "ADD", early)
			agent := r.run(t, way.from)
			packets := r.talk(t, early)

			// The plugin first: it is on the node before the agent starts.
			r.call(t, way.to, "ADD", late)
			r.call(t, way.to, "CHECK", early)
			r.wantSeen(t, late, nodeAddress)
			agent.Stop(syscall.SIGTERM, patience)
			agent = r.run(t, way.to)
			packets.await(t, 20)
			if !r.IsIPTables() && way.to == present { // the former release leaves the kind of set that it finds
				if table := r.Run(t, "nft", "list", "table", "inet", "ip-masq-agent"); !strings.Contains(table, "10.0.0.0/8 counter packets") {
					t.Errorf("prefixes are not counted:\n%s", table)
				}
			}

			// Both policies are obeyed: what the other release persisted, and a change of it.
			late2 := r.newPod(t, way.name+"-late2")
			r.call(t, way.from, "ADD", late2) // a pod whose list was read before
			r.wantSeen(t, late2, nodeAddress)
			packets.wantOnly(t, nodeAddress)
			r.Write(t, internetKept)
			r.eventually(t, agent, "the new policy", func() bool { return seenAs(early.Pod, r.Internet.IPv4) == early.Addrs[0].String() })
			r.Write(t, excepted)
			r.eventually(t, agent, "the policy before", func() bool { return seenAs(early.Pod, r.Internet.IPv4) == nodeAddress })

			// Each pod goes by the other release.
			r.call(t, way.to, "DEL", early)
			r.call(t, way.from, "DEL", late)
			r.call(t, way.to, "DEL", late2)
			for _, p := range []*pod{early, late, late2} {
				if r.hasRecord(p) || strings.Contains(r.standing(t), p.Addrs[0].String()+" ") || strings.Contains(r.standing(t), p.Addrs[0].String()+"/") {
					t.Errorf("%s: something of %s is left\n%s", way.name, p.ContainerID, r.standing(t))
				}
			}
			agent.Stop(syscall.SIGTERM, patience)
			if got := r.Try(t, r.commandOf(way.to, "cleanup")...); got.Code != 0 {
				t.Errorf("%s: cleanup: exit %d\n%s", way.name, got.Code, got.Stderr)
			}
			if rules := r.rules(t); rules != "" {
				t.Errorf("%s: left\n%s", way.name, rules)
			}
		}
	})
}

// TestRollBackOfScopes: this release's keys and annotations are in force, and the former one's programs take over: first with the file as
// it is, which the former agent refuses, so that the last good policy stays as far as it knows it; then with a file of its own. Pods are
// masqueraded all the time, and go by the former plugin. What the former release does not know of is gone when this one is back.
func TestRollBackOfScopes(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		previous, present := releases(t)
		r.sh(t, "ip addr add 192.0.2.50/32 dev internet")
		const file = "podAnnotations: [ip-masq-agent/source-addresses]\nnodeTraffic: true\n"
		r.Write(t, file)
		agent := r.run(t, present)
		chosen, refused, out := r.newPod(t, "chosen"), r.newPod(t, "refused"), r.newPod(t, "out")
		for _, add := range []struct {
			p   *pod
			key string
		}{
			{chosen, annotated(policy.SourceAddressesAnnotation, "192.0.2.50")},
			{refused, annotated(policy.MasqueradeAnnotation, "false")},
			{out, `"masquerade": false`},
		} {
			if got := r.plugin(t, "ADD", add.p, add.key); got.Code != 0 {
				t.Fatalf("ADD: %s", got.Stdout)
			}
		}
		r.wantSeen(t, chosen, "192.0.2.50")
		packets := r.talk(t, refused)
		agent.Stop(syscall.SIGTERM, patience)

		agent = r.Start(t, netnstest.Cmd{Args: r.commandOf(previous, "run", "--cni-cache-dir", r.CacheDir, "--cni-conf-dir", r.ConfDir)})
		r.eventually(t, agent, "its rules", func() bool { return strings.Contains(agent.Output(), "rules") })
		r.wantSeen(t, refused, nodeAddress)
		r.Write(t, "")
		r.eventually(t, agent, "ready", func() bool { status, _ := r.Probe("/readyz"); return status == http.StatusOK })
		r.eventually(t, agent, "masqueraded", func() bool { return seenAs(chosen.Pod, r.Internet.IPv4) == nodeAddress })
		r.wantSeen(t, out, out.Addrs[0].String())
		late := r.newPod(t, "late")
		r.call(t, previous, "ADD", late)
		r.wantSeen(t, late, nodeAddress)
		r.call(t, previous, "DEL", late)
		packets.wantOnly(t, nodeAddress)
		for _, p := range []*pod{refused, out} {
			r.call(t, previous, "DEL", p)
		}
		agent.Stop(syscall.SIGTERM, patience)

		r.Write(t, file)
		agent = r.run(t, present)
		r.wantSeen(t, chosen, "192.0.2.50")
		r.call(t, previous, "DEL", chosen)
		r.Write(t, "")
		r.eventually(t, agent, "the scopes are out of the rules", func() bool {
			return !strings.Contains(r.standing(t), "192.0.2.50") && !strings.Contains(r.standing(t), "IP-MASQ-AGENT-SRC") && !strings.Contains(r.standing(t), "IP-MASQ-AGENT-NODE")
		})
		agent.Stop(syscall.SIGTERM, patience)
		if got := r.Try(t, r.commandOf(present, "cleanup")...); got.Code != 0 {
			t.Errorf("cleanup: exit %d\n%s", got.Code, got.Stderr)
		}
		if rules := r.rules(t); rules != "" {
			t.Errorf("left\n%s", rules)
		}
	})
}
