package status

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/conflicts"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/portbudget"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

func to[T any](v T) *T { return &v }

var now = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// healthy is a node on which all is well.
func healthy() Status {
	p := policy.Default(policy.DefaultSettings())
	return Status{
		APIVersion: APIVersion,
		Daemon: Daemon{
			Running: true, Responding: true, PID: to(7), Version: to("v1"), Since: to(now.Add(-time.Hour)), Current: to(true),
			LastSync: &Sync{Time: now.Add(-3 * time.Second), Result: ResultOK},
		},
		Backend: Backend{Kind: to(backend.NFTables), Reason: to("asked for nftables")},
		Config:  Config{Valid: true, Path: "/etc/config/ip-masq-agent"},
		Policy:  Policy{Origin: OriginFile, Reason: "config file", Policy: p, Prefixes: Prefixes(p)},
		Drift:   []backend.Drift{},
		Plugin:  Plugin{Listed: to(true), Conflist: to("/etc/cni/net.d/1.conflist"), Position: to(2), Answers: to(true), Version: to("v1")},
		Pods:    Pods{Attached: []Pod{}, Uncovered: []Pod{}, OptedOut: []Pod{}, Bypassing: []Pod{}},
		Repairs: &Repairs{}, Conflicts: []conflicts.Conflict{},
		Node: Node{IPForward: map[policy.Family]bool{policy.IPv4: true}, Conntrack: to(10), ConntrackIn: to(1000)},
	}
}

// TestJudge reads as: what is wrong, which answers that changes, and the exit status.
func TestJudge(t *testing.T) {
	for name, c := range map[string]struct {
		wrong func(s *Status)
		want  string
		exit  int
	}{
		"nothing":             {func(*Status) {}, "", 0},
		"no daemon":           {func(s *Status) { s.Daemon = Daemon{} }, "agent-running fail, agent-current warn", 1},
		"a daemon that hangs": {func(s *Status) { s.Daemon = Daemon{Running: true} }, "agent-running fail, agent-current warn", 1},
		"a failed sync":       {func(s *Status) { s.Daemon.LastSync.Result = ResultFailed }, "agent-current warn", 3},
		"no sync yet":         {func(s *Status) { s.Daemon.LastSync = nil }, "agent-current warn", 3},
		"an old sync":         {func(s *Status) { s.Daemon.Current = to(false) }, "agent-current warn", 3},
		"not in the conflist": {func(s *Status) { s.Plugin.Listed, s.Plugin.Position = to(false), nil }, "plugin-listed fail", 1},
		"no conflist": {func(s *Status) {
			s.Plugin = Plugin{Listed: to(false), Answers: to(true), Version: to("v1"), Error: to("none")}
		}, "plugin-listed fail", 1},
		"a binary that is not there":  {func(s *Status) { s.Plugin.Answers, s.Plugin.Version = to(false), nil }, "plugin-answers fail, versions-agree warn", 1},
		"another version":             {func(s *Status) { s.Plugin.Version = to("v2") }, "versions-agree warn", 3},
		"no daemon, another version":  {func(s *Status) { s.Daemon, s.Plugin.Version = Daemon{}, to("v2") }, "agent-running fail, agent-current warn, versions-agree warn", 1},
		"no backend works":            {func(s *Status) { s.Backend.Error = to("no iptables") }, "backend-works fail", 1},
		"none chosen yet":             {func(s *Status) { s.Backend = Backend{} }, "", 0},
		"a bad config":                {func(s *Status) { s.Config = Config{Error: to("bad")} }, "config-valid fail", 1},
		"drift":                       {func(s *Status) { s.Drift = []backend.Drift{{Object: "chain", Problem: "missing", Detail: "X"}} }, "kernel-equal fail", 1},
		"a kernel that is not read":   {func(s *Status) { s.Drift = nil }, "kernel-equal fail", 1},
		"an uncovered pod":            {func(s *Status) { s.Pods.Uncovered = []Pod{{ContainerID: "a"}} }, "pods-covered fail", 1},
		"a cache that is not read":    {func(s *Status) { s.Pods.Uncovered = nil }, "pods-covered fail", 1},
		"source addresses":            {func(s *Status) { s.lacks(nil) }, "", 0},
		"no source address":           {func(s *Status) { s.lacks([]policy.Family{policy.IPv4}) }, "egress-addresses warn", 3},
		"addresses that are not read": {func(s *Status) { s.Egress, s.Unknown = nil, []Unknown{{PartAddresses, "no"}} }, "egress-addresses warn", 3},
		"a conflict":                  {func(s *Status) { s.Conflicts = []conflicts.Conflict{{Owner: "x", Fix: "y"}} }, "no-conflicts warn", 3},
		"conflicts that are not read": {func(s *Status) { s.Unknown = []Unknown{{PartConflicts, "no"}} }, "no-conflicts warn", 3},
		"no forwarding":               {func(s *Status) { s.Node.IPForward[policy.IPv4] = false }, "ip-forward fail", 1},
		"no forwarding of IPv6":       {func(s *Status) { s.Policy.Settings.IPv6, s.Node.IPForward[policy.IPv6] = true, false }, "ip-forward fail", 1},
		"forwarding of IPv6 is off":   {func(s *Status) { s.Node.IPForward[policy.IPv6] = false }, "", 0},
		"many connections":            {func(s *Status) { s.Node.Conntrack = to(800) }, "conntrack-room warn", 3},
		"all connections":             {func(s *Status) { s.Node.Conntrack = to(950) }, "conntrack-room fail", 1},
		"some ports":                  {func(s *Status) { s.Ports = ports(0.79) }, "", 0},
		"many ports":                  {func(s *Status) { s.Ports = ports(0.80) }, "ports-room warn", 3},
		"all ports":                   {func(s *Status) { s.Ports = ports(0.95) }, "ports-room fail", 1},
	} {
		s := healthy()
		c.wrong(&s)
		checks := Judge(s, "v1")
		var answers []string
		for _, check := range checks.Checks {
			if check.Status != OK {
				answers = append(answers, check.ID+" "+check.Status)
			}
			if (check.Fix == nil) != (check.Status == OK) || strings.Contains(check.Message, "%!") || strings.Contains(check.Message, "unknown") && name == "nothing" {
				t.Errorf("%s: %+v", name, check)
			}
		}
		if got := strings.Join(answers, ", "); got != c.want || checks.Exit() != c.exit {
			t.Errorf("%s: %q, exit %d, want %q, %d", name, got, checks.Exit(), c.want, c.exit)
		}
	}
}

// lacks gives the policy an egress group, of which the node has no address of some families.
func (s *Status) lacks(missing []policy.Family) {
	s.Policy.Egress = []policy.Egress{{
		Destinations:    []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")},
		SourceAddresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/28"), netip.MustParsePrefix("2001:db8::/64")},
	}}
	node := []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	s.Policy.Prefixes = Prefixes(s.Policy.Policy)
	s.Egress = EgressOf(s.Policy.Policy, []ruleset.Egress{{Group: 1, Addresses: node[:1-min(len(missing), 1)], Missing: missing}})
}

// TestEgressText: the group of a prefix, the node's addresses of the group, and what happens without any.
func TestEgressText(t *testing.T) {
	for want, missing := range map[string][]policy.Family{
		"egress      group 1: 192.0.2.1\n": nil,
		"egress      group 1: the node has no IPv4 and no IPv6 address in 192.0.2.0/28, 2001:db8::/64:\n              connections are masqueraded\n": {policy.IPv4, policy.IPv6},
	} {
		s := healthy()
		s.lacks(missing)
		var text strings.Builder
		s.Print(&text, Style{Now: now})
		for _, want := range []string{want, "translate   203.0.113.0/24 (group 1)\n"} {
			if !strings.Contains(text.String(), want) {
				t.Errorf("no %q in\n%s", want, text.String())
			}
		}
	}
}

// TestText: no line is wider than the page, whatever is in the document, and colors are there only where they are asked for.
func TestText(t *testing.T) {
	long := strings.Repeat("word ", 60) + strings.Repeat("x", 150)
	s := healthy()
	s.Config = Config{Error: to(long + "\n" + long), Path: long}
	s.Conflicts = []conflicts.Conflict{{Owner: long, Where: long, Rule: long, Fix: long}}
	s.Repairs = &Repairs{Total: 1, Last: []Repair{{Time: now, Object: backend.ObjectPod, Problem: backend.ProblemMissing, Count: 2, Detail: long, By: to("nft")}}}
	s.Unknown = []Unknown{{PartRecords, long}}
	for range 50 {
		s.Drift = append(s.Drift, backend.Drift{Object: backend.ObjectPod, Problem: backend.ProblemMissing, Detail: long})
		s.Pods.Attached = append(s.Pods.Attached, Pod{Namespace: to(long), Name: to(long), Network: long, IfName: "eth0", Addresses: []netip.Addr{netip.MustParseAddr("fd00::1")}})
	}
	var plain, colored strings.Builder
	s.Print(&plain, Style{Now: now})
	Judge(s, "v1").Print(&plain, Style{Now: now})
	s.Print(&colored, Style{Colors: true, Now: now})
	for line := range strings.Lines(plain.String()) {
		if n := len([]rune(strings.TrimRight(line, "\n"))); n > Width {
			t.Errorf("%d columns: %q", n, line)
		}
	}
	for _, part := range []string{"and 30 more", "changed by nft", "(missing: it should be in the kernel and is not)", "last sync 11:59:57 UTC (3s ago): ok"} {
		if !strings.Contains(plain.String(), part) {
			t.Errorf("no %q in\n%s", part, plain.String())
		}
	}
	if strings.Contains(plain.String(), "\x1b") || !strings.Contains(colored.String(), "\x1b[31m") {
		t.Error("colors are not where they belong")
	}
}

func TestAgeAndSize(t *testing.T) {
	for d, want := range map[time.Duration]string{-time.Second: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m1s", 3661 * time.Second: "1h1m", 49 * time.Hour: "2d1h"} {
		if got := Age(d); got != want {
			t.Errorf("%d: %s, want %s", d, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 5 << 20: "5.0 MiB"} {
		if got := Size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

// ports is a report whose busiest destination takes a share of its ports.
func ports(share float64) *portbudget.Report {
	return &portbudget.Report{Highest: share, Destinations: []portbudget.Destination{{Taken: int(100 * share), Usable: 100, Share: share}}}
}
