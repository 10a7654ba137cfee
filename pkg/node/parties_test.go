package node

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/atomicfile"
	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/registry"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// A node has several writers: the daemon, one-shot commands with other flags, and plugins whose entries say other things. These
// are the helpers of the tests about them.

// kinds are the three backends, with the plain iptables that the host has.
var kinds = []struct {
	name, variant string
	choice        registry.Choice
}{
	{"iptables-nft", "nft", registry.IPTables},
	{"iptables-legacy", "legacy", registry.IPTables},
	{"nftables", "nft", registry.NFTables},
}

func eachKind(t *testing.T, test func(t *testing.T, k *kernel)) {
	t.Helper()
	eachKindBut(t, "", test)
}

// eachKindBut leaves one out, about which the test has nothing to say.
func eachKindBut(t *testing.T, left registry.Choice, test func(t *testing.T, k *kernel)) {
	t.Helper()
	for _, kind := range kinds {
		if kind.choice == left {
			continue
		}
		t.Run(kind.name, func(t *testing.T) { test(t, newKernel(t, kind.variant, Options{Choice: kind.choice})) })
	}
}

// party is another process of the same node.
func (k *kernel) party(change func(o *Options)) *Node {
	o := Options{StateDir: k.stateDir, DataDir: k.dataDir, Choice: registry.Auto, Defaults: policy.DefaultSettings(), Log: k.log}
	change(&o)
	return New(o)
}

// plugin is the plugin with an entry that names a chain.
func (k *kernel) plugin(chain string) *Node {
	return k.party(func(o *Options) { o.Choice, o.Defaults.Chain = k.choice, chain })
}

// agent is another run of the agent.
func (k *kernel) agent() *Node {
	return k.party(func(o *Options) { o.Choice, o.Owner = k.choice, true })
}

// in runs something in the node's namespace.
func (k *kernel) in(t *testing.T, do func(ctx context.Context) error) {
	t.Helper()
	if err := k.Do(func() error { return do(t.Context()) }); err != nil {
		t.Fatal(err)
	}
}

func pod(network, container string, addresses ...string) attachment.Attachment {
	a := attachment.Attachment{Owner: attachment.Owner{Network: network, ContainerID: container, IfName: "eth0"}}
	for _, address := range addresses {
		a.Addresses = append(a.Addresses, netip.MustParseAddr(address))
	}
	return a
}

// ruleset is everything that stands in both families and all kinds of rules.
func (k *kernel) ruleset(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(k.Run(t, "nft", "list", "ruleset"))
	for _, program := range []string{"iptables-legacy", "ip6tables-legacy"} {
		b.WriteString(k.Run(t, program+"-save"))
	}
	return b.String()
}

// wantRules looks for texts in the whole ruleset; one that begins with a mark must not be there.
func (k *kernel) wantRules(t *testing.T, texts ...string) {
	t.Helper()
	rules := k.ruleset(t)
	for _, text := range texts {
		text, absent := strings.CutPrefix(text, "!")
		if strings.Contains(rules, text) == absent {
			t.Errorf("%q: there is %t, want %t, in\n%s", text, absent, !absent, rules)
		}
	}
}

func dualStack(chain string) policy.Policy {
	s := policy.DefaultSettings()
	s.Chain, s.IPv6 = chain, true
	return policy.Default(s)
}

// TestEveryRuleMovesToTheAgentsChain: a plugin's entry named another chain before the agent came. The agent's chain wins, also
// where the record or all records are lost, and the pod's DEL leaves nothing.
func TestEveryRuleMovesToTheAgentsChain(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, k *kernel){
		"everything on record": func(*testing.T, *kernel) {},
		"the choice is lost":   func(t *testing.T, k *kernel) { remove(t, k.decisionPath()) },
		"all is lost":          func(t *testing.T, k *kernel) { remove(t, k.decisionPath()); remove(t, k.records.Dir) },
	} {
		t.Run(name, func(t *testing.T) {
			eachKind(t, func(t *testing.T, k *kernel) {
				a := pod("pods", "a", "10.1.0.2")
				k.in(t, func(ctx context.Context) error { return k.plugin("MY-MASQ").Attach(ctx, a) })
				k.wantRules(t, "MY-MASQ", "10.1.0.2")
				lose(t, k)
				k.mustSync(t)
				k.wantRules(t, "!MY-MASQ", "IP-MASQ-AGENT", "10.1.0.2")
				if d, _ := k.Decision(); d.Chain != policy.DefaultChain || len(d.FormerChains) > 0 {
					t.Errorf("recorded %+v", d)
				}
				k.in(t, func(ctx context.Context) error { return k.plugin("MY-MASQ").Attach(ctx, pod("pods", "b", "10.1.0.3")) })
				k.wantRules(t, "!MY-MASQ", "10.1.0.3")
				k.in(t, func(ctx context.Context) error { return k.plugin("MY-MASQ").Detach(ctx, a.Owner) })
				k.wantRules(t, "!10.1.0.2", "10.1.0.3")
				if n := len(recordsOf(t, k)); n != 1 {
					t.Errorf("%d records", n)
				}
			})
		})
	}
}

func recordsOf(t *testing.T, k *kernel) []attachment.Attachment {
	t.Helper()
	records, err := k.records.List()
	if err != nil {
		t.Fatal(err)
	}
	return records
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

// TestOneChainForAllEntries: without an agent the first entry decides, whatever the second names.
func TestOneChainForAllEntries(t *testing.T) {
	eachKind(t, func(t *testing.T, k *kernel) {
		k.in(t, func(ctx context.Context) error { return k.plugin("FIRST").Attach(ctx, pod("one", "a", "10.1.0.2")) })
		k.in(t, func(ctx context.Context) error { return k.plugin("SECOND").Attach(ctx, pod("two", "b", "10.1.0.3")) })
		k.wantRules(t, "FIRST", "!SECOND", "10.1.0.2", "10.1.0.3")
		if !contains(k.logged.String(), "masqChain=SECOND chain=FIRST", "level=WARN") {
			t.Errorf("no warning about the second's chain in\n%s", k.logged.String())
		}
		k.in(t, func(ctx context.Context) error { return k.plugin("SECOND").Check(ctx, pod("two", "b", "10.1.0.3")) })
		k.in(t, func(ctx context.Context) error { return k.plugin("SECOND").Detach(ctx, pod("one", "a").Owner) })
		k.wantRules(t, "!10.1.0.2", "10.1.0.3")
	})
}

// TestKilledWhileMoving: the record names both chains before any rule is written, so a DEL finds the rule in either, and the
// next Sync finishes.
func TestKilledWhileMoving(t *testing.T) {
	eachKind(t, func(t *testing.T, k *kernel) {
		a, b := pod("pods", "a", "10.1.0.2"), pod("pods", "b", "10.1.0.3")
		k.in(t, func(ctx context.Context) error { return k.plugin("OLD").Attach(ctx, a) })
		k.in(t, func(ctx context.Context) error { return k.plugin("OLD").Attach(ctx, b) })
		d, _ := k.Decision()
		d.moveTo(policy.DefaultChain)
		if err := k.saveDecision(d); err != nil {
			t.Fatal(err)
		}
		k.in(t, func(ctx context.Context) error { return k.plugin("OLD").Detach(ctx, a.Owner) })
		k.wantRules(t, "!10.1.0.2", "10.1.0.3")
		k.mustSync(t)
		k.wantRules(t, "!OLD", "10.1.0.3", "IP-MASQ-AGENT")
	})
}

// TestTheDaemonPutsItsSettingsBack: a sync ran with other flags beside the daemon. The daemon's next one notices,
// although it has nothing else to do, and every ADD and DEL is complete before and after.
func TestTheDaemonPutsItsSettingsBack(t *testing.T) {
	eachKind(t, func(t *testing.T, k *kernel) {
		wanted := dualStack(policy.DefaultChain)
		sync := func(n *Node, p policy.Policy) {
			k.in(t, func(ctx context.Context) error { _, err := n.Sync(ctx, p); return err })
		}
		sync(k.Node, wanted)
		a, b := pod("pods", "a", "10.1.0.2", "fd00:1::2"), pod("pods", "b", "10.1.0.3", "fd00:1::3")
		k.in(t, func(ctx context.Context) error { return k.plugin(policy.DefaultChain).Attach(ctx, a) })
		sync(k.Node, wanted)
		other := policy.DefaultSettings()
		other.Chain = "OTHER"
		sync(k.agent(), policy.Default(other))
		k.wantRules(t, "OTHER", "!fd00:1::2")
		k.in(t, func(ctx context.Context) error { return k.plugin(policy.DefaultChain).Attach(ctx, b) })
		sync(k.Node, wanted)
		k.wantRules(t, "!OTHER", "fd00:1::2", "fd00:1::3", "10.1.0.2", "10.1.0.3")
		if p, err := k.LoadPolicy(); err != nil || !p.Equal(wanted) {
			t.Errorf("persisted %+v, %v", p.Settings, err)
		}
		for _, a := range []attachment.Attachment{a, b} {
			k.in(t, func(ctx context.Context) error { return k.plugin(policy.DefaultChain).Detach(ctx, a.Owner) })
		}
		k.wantRules(t, "!10.1.0.", "!fd00:1::")
	})
}

// TestTheDaemonNoticesAnEditedPolicy: the file is not what it wrote, by whatever means.
func TestTheDaemonNoticesAnEditedPolicy(t *testing.T) {
	for name, edit := range map[string]func(t *testing.T, path string){
		"removed":          remove,
		"truncated":        func(t *testing.T, path string) { write(t, path, "") },
		"replaced":         func(t *testing.T, path string) { write(t, path, `{"settings":{"chain":"X","sources":"pods"}}`) },
		"of a newer agent": func(t *testing.T, path string) { write(t, path, `{"version":7,"settings":{"chain":"X"}}`) },
	} {
		t.Run(name, func(t *testing.T) {
			k := newKernel(t, "nft", Options{})
			k.mustSync(t)
			k.mustSync(t)
			edit(t, k.policyPath())
			k.mustSync(t)
			if p, err := k.LoadPolicy(); err != nil || !p.Equal(policy.Default(policy.DefaultSettings())) {
				t.Errorf("after the next sync: %+v, %v", p, err)
			}
		})
	}
}

// TestDetachTakesTheFamiliesOfTheRecord: IPv6 went off behind the plugin's back, and the pod's IPv6 rule goes all the same.
func TestDetachTakesTheFamiliesOfTheRecord(t *testing.T) {
	eachKind(t, func(t *testing.T, k *kernel) {
		k.in(t, func(ctx context.Context) error { _, err := k.Sync(ctx, dualStack(policy.DefaultChain)); return err })
		a := pod("pods", "a", "10.1.0.2", "fd00:1::2")
		lost := pod("pods", "lost", "10.1.0.3", "fd00:1::3")
		for _, a := range []attachment.Attachment{a, lost} {
			k.in(t, func(ctx context.Context) error { return k.plugin(policy.DefaultChain).Attach(ctx, a) })
		}
		if err := k.records.Delete(lost.ID()); err != nil {
			t.Fatal(err)
		}
		if err := k.SavePolicy(policy.Default(policy.DefaultSettings())); err != nil {
			t.Fatal(err)
		}
		for _, a := range []attachment.Attachment{a, lost} {
			k.in(t, func(ctx context.Context) error { return k.plugin(policy.DefaultChain).Detach(ctx, a.Owner) })
		}
		k.wantRules(t, "!fd00:1::", "!10.1.0.")
	})
}

// TestCleanupLeavesNoChain: chains of two names in both families, one of which only its root rule tells, and what killed
// writers left.
func TestCleanupLeavesNoChain(t *testing.T) {
	eachKind(t, func(t *testing.T, k *kernel) {
		a := pod("pods", "a", "10.1.0.2", "fd00:1::2")
		k.in(t, func(ctx context.Context) error { _, err := k.agent().Sync(ctx, dualStack("UNKNOWN")); return err })
		k.in(t, func(ctx context.Context) error { return k.plugin("UNKNOWN").Attach(ctx, a) })
		remove(t, k.stateDir)
		remove(t, k.dataDir)
		if k.choice != registry.NFTables { // that has one table
			k.in(t, func(ctx context.Context) error {
				return k.plugin("SECOND").Attach(ctx, pod("pods", "b", "10.1.0.3"))
			})
			k.wantRules(t, "UNKNOWN-PODS", "SECOND-PODS")
		}
		unfinished := []string{ // by killed writes, of version 0.1.0 too
			filepath.Join(k.dataDir, "."+policyFile+".tmp-1"), filepath.Join(k.dataDir, atomicfile.TempPrefix+"1"),
			filepath.Join(k.stateDir, "."+decisionFile+".tmp-1"), filepath.Join(k.stateDir, atomicfile.TempPrefix+"1"),
		}
		for _, path := range unfinished {
			write(t, path, "{")
		}
		var lines []string
		k.in(t, func(ctx context.Context) (err error) { lines, err = k.Leftovers(ctx); return err })
		for _, what := range append(unfinished, "chain UNKNOWN") {
			if text := fmt.Sprint(lines); !strings.Contains(text, what) {
				t.Errorf("a dry run does not name %s: %s", what, text)
			}
		}
		k.in(t, k.Cleanup)
		k.wantRules(t, "!UNKNOWN", "!SECOND", "!10.1.0.", "!fd00:1::", "!ip-masq")
		for _, path := range unfinished {
			if _, err := os.Lstat(path); err == nil {
				t.Errorf("%s is left", path)
			}
		}
		if lines, _ := k.Leftovers(t.Context()); len(lines) > 0 {
			t.Errorf("a second dry run says %s", lines)
		}
	})
}

// TestLookShowsAnotherChain is the drift of a node whose root rules lead to two chains. The table of nftables holds one agent's
// chains, and Apply removes others.
func TestLookShowsAnotherChain(t *testing.T) {
	eachKindBut(t, registry.NFTables, func(t *testing.T, k *kernel) {
		look := func() (drift []backend.Drift) {
			k.in(t, func(ctx context.Context) error {
				view, err := k.Look(ctx, policy.Default(policy.DefaultSettings()))
				drift = view.Drift
				return err
			})
			return drift
		}
		k.mustSync(t)
		if drift := look(); len(drift) > 0 {
			t.Errorf("after a sync: %v", drift)
		}
		other := k.party(func(o *Options) {
			o.StateDir, o.DataDir, o.Choice, o.Defaults.Chain = t.TempDir(), t.TempDir(), k.choice, "OTHER"
		})
		k.in(t, func(ctx context.Context) error { return other.Attach(ctx, pod("pods", "a", "10.1.0.2")) })
		if drift := look(); !strings.Contains(fmt.Sprint(drift), "OTHER is in force") {
			t.Errorf("drift %v", drift)
		}
	})
}

func contains(text string, parts ...string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}
