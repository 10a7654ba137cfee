package iptables

import (
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
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
		{"behind somebody's exception", []string{"-A POSTROUTING -d 203.0.113.7/32 -j ACCEPT", "P"}, nil},
		{"a stranger's jump to our chain", []string{"P", "-A POSTROUTING -s 10.9.0.0/16 -j IP-MASQ-AGENT"}, nil},
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
			planRoot(sc, s, parseChains(strings.Join(lines, "\n")))
			if got, want := strings.Join(sc.lines, "\n"), strings.Join(test.want, "\n"); got != want {
				t.Errorf("sent:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}
