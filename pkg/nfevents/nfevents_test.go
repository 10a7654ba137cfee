package nfevents

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// watchIn watches a namespace until the test ends.
func watchIn(t *testing.T, s *netnstest.Space) chan struct{} {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	changed := make(chan struct{}, 1)
	if err := s.Do(func() error { return watch(ctx, changed) }); err != nil {
		t.Fatal(err)
	}
	return changed
}

// watch is Watch for tests that do not ask who wrote.
func watch(ctx context.Context, changed chan<- struct{}) error {
	_, err := Watch(ctx, changed, func(string, string) bool { return false })
	return err
}

func heard(changed <-chan struct{}, within time.Duration) bool {
	select {
	case <-changed:
		return true
	case <-time.After(netnstest.Limit(within)):
		return false
	}
}

// TestWatch: what is noticed, and what is not.
func TestWatch(t *testing.T) {
	netnstest.Require(t, "nft", "iptables-nft", "iptables-legacy")
	s, other := netnstest.NewSpace(t, "watched"), netnstest.NewSpace(t, "other")
	changed := watchIn(t, s)
	for _, c := range []struct {
		in     *netnstest.Space
		script string
		want   bool
	}{
		{s, "nft add table inet x", true},
		{s, "nft add chain inet x c", true},
		{s, "nft flush ruleset", true},
		{s, "iptables-nft -t nat -A POSTROUTING -s 10.0.0.1 -j ACCEPT", true},
		{s, "iptables-nft -t nat -F", true},
		{s, "iptables-nft -t nat -S; nft list ruleset", false},
		{s, "iptables-legacy -t nat -A POSTROUTING -s 10.0.0.1 -j ACCEPT", false},
		{other, "nft add table inet x", false},
	} {
		c.in.Run(t, "sh", "-ec", c.script)
		if got := heard(changed, 500*time.Millisecond); got != c.want {
			t.Errorf("%s in %s: heard %v, want %v", c.script, c.in.Name, got, c.want)
		}
		for heard(changed, 2*quiet) { // what one command does in several steps
		}
	}
}

// TestWatchInAStorm: more than fits into a buffer is a few events, and neither an error nor the end of events.
func TestWatchInAStorm(t *testing.T) {
	netnstest.Require(t, "nft")
	s := netnstest.NewSpace(t, "storm")
	changed := watchIn(t, s)
	var script strings.Builder
	script.WriteString("add table inet x\nadd chain inet x c\n")
	for i := range 20000 {
		fmt.Fprintf(&script, "add rule inet x c ip saddr 10.0.%d.%d counter\n", i/250, i%250)
	}
	begin := time.Now()
	if r, err := s.Exec(context.Background(), netnstest.Cmd{Args: []string{"nft", "-f", "-"}, Stdin: script.String()}); err != nil || r.Code != 0 {
		t.Fatalf("%v\n%s", err, r.Stderr)
	}
	events := 0
	for heard(changed, 5*quiet) {
		events++
	}
	if most := int(time.Since(begin)/quiet) + 1; events == 0 || events > most {
		t.Errorf("%d events, want between 1 and %d", events, most)
	}
	s.Run(t, "nft", "add", "table", "inet", "y")
	if !heard(changed, time.Second) {
		t.Error("no event after a storm")
	}
}

// TestWatchEnds with its context: nothing is sent any more.
func TestWatchEnds(t *testing.T) {
	netnstest.Require(t, "nft")
	s := netnstest.NewSpace(t, "ends")
	ctx, cancel := context.WithCancel(context.Background())
	changed := make(chan struct{}, 1)
	if err := s.Do(func() error { return watch(ctx, changed) }); err != nil {
		t.Fatal(err)
	}
	cancel()
	time.Sleep(turn + 100*time.Millisecond)
	s.Run(t, "nft", "add", "table", "inet", "x")
	if heard(changed, 300*time.Millisecond) {
		t.Error("still watching")
	}
}

// TestWriters: who wrote what is ours, in the order of writing, once; not who wrote something else, nor who read.
func TestWriters(t *testing.T) {
	netnstest.Require(t, "nft", "iptables-nft")
	s := netnstest.NewSpace(t, "writers")
	changed := make(chan struct{}, 1)
	var w *Watcher
	ours := func(table, chain string) bool { return table == "own" || table == "nat" && chain == "POSTROUTING" }
	err := s.Do(func() (err error) { w, err = Watch(t.Context(), changed, ours); return err })
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ script, want string }{
		{"nft add table inet x", ""},
		{"nft list ruleset", ""},
		{"nft add table inet own", "nft"},
		{"nft add set inet own s '{ type ipv4_addr; }'; nft add element inet own s '{ 10.0.0.1 }'", "nft nft"},
		{"nft flush ruleset", "nft"},
		{"iptables-nft -t nat -A POSTROUTING -s 10.0.0.1 -j ACCEPT", "iptables-nft"},
		{"iptables-nft -t nat -N OTHER", ""},
		{"iptables-nft -t nat -F; nft add table inet own", "iptables-nft nft"},
	} {
		s.Run(t, "sh", "-ec", c.script)
		var names []string
		for _, writer := range w.Writers() {
			names = append(names, writer.Name)
			if writer.PID <= 1 {
				t.Errorf("%s: process %d", c.script, writer.PID)
			}
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.script, got, c.want)
		}
		if got := w.Writers(); len(got) > 0 {
			t.Errorf("%s: told twice: %v", c.script, got)
		}
	}
	if !heard(changed, time.Second) {
		t.Error("asking for writers swallowed the events")
	}
}
