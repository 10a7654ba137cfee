package iptables_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// everything is a state with all that makes chains, for a shared chain of the longest name.
func everything() ruleset.State {
	s := policy.DefaultSettings()
	s.Chain, s.IPv6, s.NodeTraffic = strings.Repeat("X", policy.MaxChain), true, true
	s.PodAnnotations = policy.AllowedAnnotations([]string{policy.SourceAddressesAnnotation})
	p := policy.Default(s)
	goldenEgress(&p)
	p.OutputInterfaces = policy.Interfaces{"eth0", "bond*"}
	for len(p.Egress) < policy.MaxEgress {
		p.Egress = append(p.Egress, policy.Egress{SourceAddresses: prefixes("198.18.0.0/15")})
	}
	p.Egress[policy.MaxEgress-1].Destinations = prefixes("198.51.100.7/32")
	pods := goldenPods(3)
	state := ruleset.Build(p, pods[:2], ruleset.Node{Addresses: goldenNode, OptedOut: pods[2:]})
	state.Tables[0].Pods[1].Translated = goldenNode[3]
	return state
}

// TestLongestNames: every chain's name fits, whatever the shared chain is called, and all of them go.
func TestLongestNames(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			k := newKernel(t, kind)
			want := everything()
			k.s = want.Settings
			k.settle(want)
			k.holds(want)
			if !strings.Contains(k.rules(), strings.Repeat("X", policy.MaxChain)+"-E999") {
				t.Errorf("no chain of the last group in\n%s", k.rules())
			}
			k.must(k.in(func(ctx context.Context) error { return k.b.RemoveAll(ctx) }), "RemoveAll")
			if rules := k.rules(); strings.Contains(rules, "XXX") {
				t.Errorf("RemoveAll left\n%s", rules)
			}
		})
	}
}

// TestOnlyTheGroupIsWritten: a change of the node's addresses rewrites the chain of the group that it is about.
func TestOnlyTheGroupIsWritten(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			k := newKernel(t, kind)
			want := goldenState("egress")
			k.settle(want)
			// Whatever is written anew loses its counts.
			k.sh(`for t in "$T" "$T6"; do for c in IP-MASQ-AGENT IP-MASQ-AGENT-E1 IP-MASQ-AGENT-E2; do
n=$($t -t nat -S $c | grep -c ^-A); for i in $(seq $n); do
$t -t nat -S $c | grep ^-A | sed -n "${i}p" | sed "s/^-A $c/$t -t nat -R $c $i -c 7 77/" | sh
done; done; done`)
			before := k.sh("$S -c -t nat; $S6 -c -t nat")
			if strings.Count(before, "[7:77] -A IP-MASQ-AGENT-E1 ") < 2 || strings.Count(before, "[7:77] -A IP-MASQ-AGENT -d") < 2 {
				t.Fatalf("no counts:\n%s", before)
			}
			want.Tables[0].Groups[0].Addresses = want.Tables[0].Groups[0].Addresses[:2]
			k.settle(want)
			after := k.sh("$S -c -t nat; $S6 -c -t nat")
			for line := range strings.Lines(before) {
				if is4 := strings.Contains(line, "192.0.2."); strings.Contains(line, "[7:77]") && strings.Contains(after, line) == is4 {
					t.Errorf("written anew is %t, want %t: %s", !strings.Contains(after, line), is4, line)
				}
			}
		})
	}
}

// without makes the variant's programs refuse what has a word in it, as they do where the kernel lacks its module.
func (k *kernel) without(word string, call func()) {
	k.Helper()
	dir := k.TempDir()
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, variant := range []string{"-nft-restore", "-legacy-restore"} {
			program, err := exec.LookPath(family + variant)
			k.must(err, "look up")
			script := "#!/bin/sh\ninput=$(cat)\ncase $input in *'" + word + "'*) echo 'No chain/target/match by that name' >&2; exit 1;; esac\nprintf '%s\\n' \"$input\" | exec " + program + " \"$@\"\n"
			k.must(os.WriteFile(filepath.Join(dir, family+variant), []byte(script), 0o755), "write")
			k.must(os.Symlink(strings.TrimSuffix(program, "-restore"), filepath.Join(dir, strings.TrimSuffix(family+variant, "-restore"))), "link")
		}
	}
	former := os.Getenv("PATH")
	k.Setenv("PATH", dir+":"+former)
	call()
	k.Setenv("PATH", former)
}

// TestDropWithoutQueues: a kernel without NFQUEUE gives what should be dropped an address that gets no answer, says so in the rule,
// and both forms are right, so that neither is written again.
func TestDropWithoutQueues(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			k := newKernel(t, kind)
			want := goldenState("egress")
			k.without("-j NFQUEUE", func() { k.settle(want) })
			rules := k.sh("$T -t nat -S IP-MASQ-AGENT-E3; $T6 -t nat -S IP-MASQ-AGENT-E3")
			for _, address := range []string{"192.0.0.8", "100::1"} {
				if !strings.Contains(rules, "without NFQUEUE, and gives an address that gets no answer\" -j SNAT --to-source "+address) {
					t.Errorf("nothing with %s in\n%s", address, rules)
				}
			}
			if k.apply(want) {
				t.Error("where the kernel has NFQUEUE, Apply writes again")
			}
			if drift := k.b.Diff(k.observe(), want); len(drift) > 0 {
				t.Errorf("Diff tells %v", drift)
			}
			traffic, err := k.traffic()
			drops := 0
			for _, one := range traffic {
				if one.Verdict == policy.Drop {
					drops++
				}
			}
			if err != nil || drops != 2 {
				t.Errorf("%d rules count what is dropped, want one for each family: %v", drops, err)
			}
			k.sh("$T -t nat -F IP-MASQ-AGENT-E3")
			k.settle(want)
			if rules := k.sh("$T -t nat -S IP-MASQ-AGENT-E3"); !strings.Contains(rules, "-j NFQUEUE") {
				t.Errorf("repaired where the kernel has NFQUEUE, there is\n%s", rules)
			}
		})
	}
}

func (k *kernel) traffic() (all []backend.Traffic, err error) {
	err = k.in(func(ctx context.Context) (err error) {
		all, err = k.b.Traffic(ctx, k.s, false, k.s.Families()...)
		return err
	})
	return all, err
}

// TestAttachReadsNoGroup: an ADD starts one process for each family, whatever chains there are, and the second one none that writes.
func TestAttachReadsNoGroup(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			k := newKernel(t, kind)
			all := everything()
			k.s = all.Settings
			k.settle(all)
			chosen := ruleset.Build(policy.Policy{Settings: k.s}, goldenPods(4)[3:], ruleset.Node{})
			chosen.Tables[0].Pods[0].Translated = goldenNode[0]
			attach := func() {
				k.must(k.in(func(ctx context.Context) error { return k.b.Attach(ctx, chosen) }), "Attach")
			}
			if started := k.processes(attach); started != 2 {
				t.Errorf("Attach started %d processes, want one for each family", started)
			}
			after := k.saved()
			attach()
			if again := k.saved(); strings.Join(again, "\n") != strings.Join(after, "\n") {
				t.Errorf("a second Attach made\n%s\nof\n%s", strings.Join(again, "\n"), strings.Join(after, "\n"))
			}
			k.must(k.in(func(ctx context.Context) error { return k.b.Verify(ctx, chosen) }), "Verify")
			want := all
			want.Tables = append([]ruleset.Table(nil), all.Tables...)
			for i := range want.Tables {
				want.Tables[i].Pods = append(append([]ruleset.Pod(nil), want.Tables[i].Pods...), chosen.Tables[i].Pods...)
			}
			if k.apply(want) {
				t.Errorf("after Attach, Apply wrote:\n%s", k.rules())
			}
			for _, pod := range k.observe().Pods() {
				if to := pod.Translated; pod.Owner == chosen.Tables[0].Pods[0].Owner && pod.Address.Is4() && to != goldenNode[0] {
					t.Errorf("%v is observed with %s, want %s", pod, to, goldenNode[0])
				}
			}
			other := chosen
			other.Tables = append([]ruleset.Table(nil), chosen.Tables...)
			other.Tables[0].Pods = append([]ruleset.Pod(nil), chosen.Tables[0].Pods...)
			other.Tables[0].Pods[0].Translated = goldenNode[1]
			if err := k.in(func(ctx context.Context) error { return k.b.Attach(ctx, other) }); !errors.Is(err, backend.ErrIncomplete) {
				t.Errorf("Attach with another address: %v, want ErrIncomplete", err)
			}
			for _, known := range [][]ruleset.Pod{nil, {chosen.Tables[0].Pods[0], chosen.Tables[1].Pods[0]}, {other.Tables[0].Pods[0]}} {
				attach()
				k.must(k.in(func(ctx context.Context) error {
					return k.b.Detach(ctx, k.s, k.s.Families(), chosen.Tables[0].Pods[0].Owner, known, func(netip.Addr) []ruleset.Pod { return nil })
				}), "Detach")
				if k.apply(all) {
					t.Errorf("after Detach with %v on record, Apply wrote:\n%s", known, k.rules())
				}
			}
		})
	}
}

// TestFormerChainInUse: other software's rule that leads to a chain of a former policy keeps that chain, and not the new policy from being in
// force.
func TestFormerChainInUse(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			k := newKernel(t, kind)
			k.settle(goldenState("egress"))
			k.sh("$T -t nat -A POSTROUTING -s 192.168.7.7 -j IP-MASQ-AGENT-E2")
			want := k.state(0)
			got := k.observe()
			err := k.in(func(ctx context.Context) error { _, err := k.b.Apply(ctx, got, want); return err })
			if err == nil || strings.Contains(k.rules(), "IP-MASQ-AGENT-E1") && strings.Contains(k.sh("$T -t nat -S IP-MASQ-AGENT"), "-g") {
				t.Errorf("Apply: %v\n%s", err, k.rules())
			}
			err = k.in(func(ctx context.Context) error { return k.b.RemoveAll(ctx) })
			var kept *backend.Kept
			if !errors.As(err, &kept) || !strings.Contains(err.Error(), "-A POSTROUTING -s 192.168.7.7/32 -j IP-MASQ-AGENT-E2") {
				t.Errorf("RemoveAll: %v", err)
			}
			k.sh("$T -t nat -D POSTROUTING -s 192.168.7.7 -j IP-MASQ-AGENT-E2")
			k.settle(want)
			if rules := k.rules(); strings.Contains(rules, "-E2") {
				t.Errorf("left of the former policy:\n%s", rules)
			}
		})
	}
}
