package iptables

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// TestPlanRoot reads as: what POSTROUTING holds, and what is sent. P is our root rule, A the Kubernetes agent's.
func TestPlanRoot(t *testing.T) {
	s := policy.DefaultSettings()
	roots := strings.NewReplacer("P", "-A POSTROUTING "+rootRule(s).String(), "A", "-A POSTROUTING "+knownRoots(s)[1].String(),
		"Q", "-A POSTROUTING "+knownRoots(s)[2].String())
	own := rootRule(s).String()
	old, quoted := knownRoots(s)[1].String(), knownRoots(s)[2].String()
	kube := "-A POSTROUTING -j KUBE-POSTROUTING"
	for _, test := range []struct {
		name string
		now  []string
		want []string
	}{
		{"nothing there", nil, []string{"-A POSTROUTING " + own}},
		{"right", []string{"P"}, nil},
		{"right behind a jump", []string{kube, "P"}, nil},
		{"twice", []string{"P", "P"}, []string{"-D POSTROUTING " + own, "-D POSTROUTING " + own, "-A POSTROUTING " + own}},
		{"an older agent's", []string{"A"}, []string{"-D POSTROUTING " + old, "-A POSTROUTING " + own}},
		{"with literal quotes", []string{"Q", kube}, []string{"-D POSTROUTING " + quoted, "-A POSTROUTING " + own}},
		{"ours and an older agent's", []string{"P", "A"}, []string{"-D POSTROUTING " + own, "-D POSTROUTING " + old, "-A POSTROUTING " + own}},
		{"behind a verdict without a match", []string{kube, "-A POSTROUTING -j ACCEPT", "P"}, []string{"-D POSTROUTING " + own, "-I POSTROUTING 2 " + own}},
		{"behind one with a comment alone", []string{`-A POSTROUTING -m comment --comment "all of it" -j MASQUERADE`, "P"}, []string{"-D POSTROUTING " + own, "-I POSTROUTING 1 " + own}},
		{"before it", []string{"P", "-A POSTROUTING -j ACCEPT"}, nil},
		{"behind an exception of other software", []string{"-A POSTROUTING -d 203.0.113.7/32 -j ACCEPT", "P"}, nil},
		{"other software's jump to our chain", []string{"P", "-A POSTROUTING -s 10.9.0.0/16 -j IP-MASQ-AGENT"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			var lines []string
			for _, line := range test.now {
				if len(line) == 1 {
					line = roots.Replace(line)
				}
				lines = append(lines, line)
			}
			sc := newScript()
			planRoot(sc, s, rootsOf(s, parseChains(strings.Join(lines, "\n"))[postrouting]))
			if got, want := strings.Join(sc.lines, "\n"), strings.Join(test.want, "\n"); got != want {
				t.Errorf("sent:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// TestPlanRootNFT reads as: what POSTROUTING holds, what is sent, and what goes by its handle. P is our root rule, A the
// Kubernetes agent's, x a rule that packets get past, v a verdict without a match.
func TestPlanRootNFT(t *testing.T) {
	s := policy.DefaultSettings()
	known := map[rune]root{'P': {rule: rootRule(s)}, 'A': {rule: knownRoots(s)[1]}, 'x': {}, 'v': {final: true}}
	own := rootRule(s).String()
	for _, test := range []struct{ now, sent, surplus string }{
		{"", "-A POSTROUTING " + own, ""},
		{"P", "", ""},
		{"xPx", "", ""},
		{"Pv", "", ""},
		{"xvP", "-I POSTROUTING 2 " + own, "3"},
		{"PP", "", "2"},
		{"xAxP", "", "2"},
		{"A", "-A POSTROUTING " + own, "1"},
		{"vA", "-I POSTROUTING 1 " + own, "2"},
		{"PvPA", "", "34"},
	} {
		var roots []root
		for i, c := range test.now {
			r := known[c]
			r.handle = uint64(i + 1)
			roots = append(roots, r)
		}
		sc := newScript()
		var surplus strings.Builder
		for _, r := range planRootNFT(sc, s, roots) {
			fmt.Fprint(&surplus, r.handle)
		}
		if sent := strings.Join(sc.lines, "\n"); sent != test.sent || surplus.String() != test.surplus {
			t.Errorf("%q: sent %q and deleted %q, want %q and %q", test.now, sent, surplus.String(), test.sent, test.surplus)
		}
	}
}

// TestPlanPods reads as: what the pods' chain holds, and what is sent for the pods a and b. N is the rule for what is no pod's, c a pod
// that is gone, x a rule that does not belong there.
func TestPlanPods(t *testing.T) {
	s := policy.DefaultSettings()
	pods := map[rune]ruleset.Pod{}
	for i, c := range "abc" {
		pods[c] = ruleset.Pod{Owner: attachment.Owner{ContainerID: string(c)}.ID(), Address: netip.AddrFrom4([4]byte{10, 244, 0, byte(i)}), Label: string(c)}
	}
	table := ruleset.Table{Family: policy.IPv4, Pods: []ruleset.Pod{pods['a'], pods['b']}}
	letters := func(text string) string {
		text = strings.ReplaceAll(strings.ReplaceAll(text, s.PodsChain()+" ", ""), toNode(s).String(), "N")
		for c, pod := range pods {
			text = strings.ReplaceAll(text, podRule(s, policy.IPv4, pod).String(), string(c))
		}
		return text
	}
	for _, test := range []struct {
		node      bool
		now, want string
	}{
		{false, "ab", ""},
		{false, "ba", ""},
		{false, "a", "-A b"},
		{false, "abc", "-D c"},
		{false, "abN", "-D N"},
		{false, "aNb", "-D N"},
		{false, "axb", ":- [0:0],-A a,-A b"},
		{true, "baN", ""},
		{true, "ab", "-A N"},
		{true, "a", "-A b,-A N"},
		{true, "aN", "-I 1 b"},
		{true, "N", "-I 1 a,-I 1 b"},
		{true, "acN", "-D c,-I 1 b"},
		{true, "aNb", "-D N,-A N"},
		{true, "abNN", "-D N,-D N,-A N"},
		{true, "", "-A a,-A b,-A N"},
	} {
		s.NodeTraffic = test.node
		now := []rule{}
		for _, c := range test.now {
			r := rule{"-j", "x"}
			if pod, ok := pods[c]; ok {
				r = podRule(s, policy.IPv4, pod)
			} else if c == 'N' {
				r = toNode(s)
			}
			now = append(now, r)
		}
		sc := newScript()
		planPods(sc, s, table, now, true)
		if got := letters(strings.Join(sc.lines, ",")); got != test.want {
			t.Errorf("node traffic %t, %q: sent %q, want %q", test.node, test.now, got, test.want)
		}
	}
}
