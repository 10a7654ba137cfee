package netnstest

import (
	"context"
	"strings"
	"testing"
)

func TestVariantDecidesThePlainNames(t *testing.T) {
	Require(t, "iptables-nft", "iptables-legacy")
	s := NewSpace(t, "x")
	for variant, word := range map[string]string{"nft": "nf_tables", "legacy": "legacy"} {
		s.SetPATH(IPTables(t, variant))
		for _, plain := range []string{"iptables", "ip6tables", "iptables-save", "ip6tables-restore"} {
			if out := s.Run(t, plain, "--version"); !strings.Contains(out, word) {
				t.Errorf("%s: %s is %s", variant, plain, out)
			}
		}
		s.Run(t, "iptables-nft", "--version")
		s.Run(t, "iptables-legacy", "--version")
	}
}

func TestNoIPTables(t *testing.T) {
	Require(t)
	s := NewSpace(t, "x")
	s.SetPATH(NoIPTables(t))
	for _, program := range []string{"iptables", "ip6tables-restore", "iptables-nft", "xtables-legacy-multi"} {
		if _, err := s.Exec(context.Background(), Cmd{Args: []string{program, "--version"}}); err == nil {
			t.Errorf("%s is still there", program)
		}
	}
	s.Run(t, "ip", "link")
	s.Run(t, "sh", "-c", "! command -v iptables")
}

func TestCountExec(t *testing.T) {
	Require(t, "strace")
	s := NewSpace(t, "x")
	for script, want := range map[string]int{
		"exit 4":                              0,
		"/bin/true; /bin/true; exit 4":        2,
		"/no/such; (/bin/true); exit 4":       1,
		"/bin/true & /bin/true; wait; exit 4": 2,
	} {
		n, r := CountExec(t, s, Cmd{Args: []string{"sh", "-c", script}})
		if n != want || r.Code != 4 {
			t.Errorf("%q: %d programs, exit %d; want %d, 4", script, n, r.Code, want)
		}
	}
}

func TestExecutedCountsInterruptedCallsOnce(t *testing.T) {
	trace := `1 execve("/bin/sh", ["sh"], 0x7ff /* 3 vars */) = 0
2 execve("/bin/a", ["a"], 0x7ff /* 3 vars */ <unfinished ...>
3 execve("/bin/b", ["b"], 0x7ff /* 3 vars */) = -1 ENOENT (No such file or directory)
2 <... execve resumed>)             = 0
`
	if n := executed(trace); n != 2 {
		t.Errorf("counted %d, want 2", n)
	}
}
