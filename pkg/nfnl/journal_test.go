package nfnl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// TestTruncatedAnswer: an answer that does not fit is an error, and not a shorter list.
func TestTruncatedAnswer(t *testing.T) {
	netnstest.Require(t, "nft")
	s := netnstest.NewSpace(t, "truncated")
	s.Run(t, "nft", "add table inet a; add table inet b; add set inet a s { type ipv4_addr; }; add element inet a s { 1.1.1.1, 1.1.1.2, 1.1.1.3, 1.1.1.4, 1.1.1.5, 1.1.1.6 }")
	c := dialIn(t, s)
	if names, err := c.Tables(); err != nil || len(names) != 2 {
		t.Fatalf("%q, %v", names, err)
	}
	c.buffer = make([]byte, 100)
	if names, err := c.Tables(); !errors.Is(err, errTruncated) {
		t.Errorf("tables: %q, %v", names, err)
	}
	c = dialIn(t, s)
	c.buffer = make([]byte, 100)
	if elements, err := c.Elements("a", "s"); !errors.Is(err, errTruncated) {
		t.Errorf("elements: %v, %v", elements, err)
	}
}

// TestJournal reads as a transcript: what nft does, and which sets are named.
func TestJournal(t *testing.T) {
	netnstest.Require(t, "nft")
	s, other := netnstest.NewSpace(t, "journal"), netnstest.NewSpace(t, "other")
	var j *Journal
	if err := s.Do(func() (err error) { j, err = Listen(); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	changes := func() (names string, complete bool) {
		seen := map[string]bool{}
		complete = j.Changes(func(table, set string) {
			if name := strings.TrimSuffix(table+"/"+set, "/"); !seen[name] {
				seen[name] = true
				names += " " + name
			}
		})
		return strings.TrimSpace(names), complete
	}
	for _, step := range []struct {
		in           *netnstest.Space
		script, want string
	}{
		{s, "list ruleset", ""},
		{s, "add table inet a", "a"},
		{s, "add set inet a s { type ipv4_addr; flags interval; }", "a/s"},
		{s, "add element inet a s { 10.0.0.0/8 }; add chain inet a c; add rule inet a c ip saddr @s", "a/s"},
		{s, "flush chain inet a c", ""},
		{s, "delete element inet a s { 10.0.0.0/8 }", "a/s"},
		{s, "add element inet a s { 10.0.0.0/8 }", "a/s"},
		{s, "flush set inet a s", "a/s"},
		{s, "add table ip a; add set ip a s { type ipv4_addr; }", ""},
		{s, "add map inet a m { type ipv4_addr : verdict; }; add element inet a m { 1.1.1.1 : accept }", "a/m"},
		{s, "delete set inet a s", "a/s"},
		{s, "delete table inet a", "a/m a"},
		{other, "add table inet a", ""},
	} {
		step.in.Run(t, "nft", step.script)
		if got, complete := changes(); got != step.want || !complete {
			t.Errorf("%s: %q, want %q (complete %v)", step.script, got, step.want, complete)
		}
	}
	var storm strings.Builder
	storm.WriteString("add table inet x\nadd chain inet x c\n")
	for i := range 20000 {
		fmt.Fprintf(&storm, "add rule inet x c ip saddr 10.0.%d.%d counter\n", i/250, i%250)
	}
	if r, err := s.Exec(context.Background(), netnstest.Cmd{Args: []string{"nft", "-f", "-"}, Stdin: storm.String()}); err != nil || r.Code != 0 {
		t.Fatalf("%v\n%s", err, r.Stderr)
	}
	if _, complete := changes(); complete {
		t.Error("complete, although more was reported than fits")
	}
	s.Run(t, "nft", "add table inet y")
	if got, complete := changes(); got != "y" || !complete {
		t.Errorf("after that: %q, complete %v", got, complete)
	}
}
