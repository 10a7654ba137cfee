package agent_test

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ip-masq/ip-masq-cni/pkg/agent"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// damages are what other software does to our rules, and a daemon has to undo at the next resync.
var damages = []struct{ name, script string }{
	{"flushed chain", "iptables -w -t nat -F IP-MASQ-AGENT"},
	{"flushed pods' chain", "iptables -w -t nat -F IP-MASQ-AGENT-PODS"},
	{"deleted rule", "iptables -w -t nat -D IP-MASQ-AGENT 2"},
	{"rules in another order", "iptables -w -t nat -S IP-MASQ-AGENT 3 | sed 's/^-A/iptables -w -t nat -I/' | sh; iptables -w -t nat -D IP-MASQ-AGENT 4"},
	{"deleted root rule", "iptables -w -t nat -S POSTROUTING | grep -v -- '-j OTHERS' | grep '^-A' | sed 's/^-A/iptables -w -t nat -D/' | sh"},
	{"deleted pod rule", "iptables -w -t nat -D IP-MASQ-AGENT-PODS 1"},
	{"duplicate root rule", "iptables -w -t nat -S POSTROUTING | grep -v -- '-j OTHERS' | grep '^-A' | sed 's/^-A/iptables -w -t nat -A/' | sh"},
	{"duplicate pod rule", "iptables -w -t nat -S IP-MASQ-AGENT-PODS | grep '^-A' | sed 's/^-A/iptables -w -t nat -A/' | sh"},
	{"other software's rule in our chain", "iptables -w -t nat -I IP-MASQ-AGENT -s 10.9.9.9 -j ACCEPT"},
	// In one transaction: a repair would come between two commands.
	{"all of it", "printf '%s\\n' '*nat' '-F POSTROUTING' '-F IP-MASQ-AGENT' '-F IP-MASQ-AGENT-PODS' '-X IP-MASQ-AGENT-PODS' '-X IP-MASQ-AGENT' " +
		"'-A POSTROUTING -j OTHERS' COMMIT | iptables-restore -w --noflush"},
}

// TestDaemonHeals damages the rules in every way; a foreign chain and the jump to it stay as they are.
func TestDaemonHeals(t *testing.T) {
	eachIPTables(t, func(t *testing.T, r *rig) {
		r.nat(t, "-N", "OTHERS")
		r.nat(t, "-A", "OTHERS", "-s", "10.9.0.0/16", "-j", "RETURN")
		r.nat(t, "-A", "POSTROUTING", "-j", "OTHERS")
		record(t, r.StateDir)
		r.Write(t, often)
		agent := r.startReady(t)
		want := r.standing(t)
		for _, damage := range damages {
			t.Run(damage.name, func(t *testing.T) {
				r.Run(t, "sh", "-c", damage.script)
				r.eventually(t, agent, "healed", func() bool { return cmp.Equal(r.standing(t), want) })
			})
		}
		if rules := r.nat(t, "-S", "IP-MASQ-AGENT-PODS"); strings.Count(rules, "-g IP-MASQ-AGENT") != 3 {
			t.Errorf("want one rule for each of three IPv4 addresses:\n%s", rules)
		}
	})
}

// standing is table nat as a set of lines: the order of the chains is that of their making, and rules of different owners have
// none. The rules of the shared chain are one line, because their order is their meaning.
func (r *rig) standing(t *testing.T) []string {
	t.Helper()
	var lines, chain []string
	for line := range strings.Lines(r.nat(t, "-S")) {
		if strings.HasPrefix(line, "-A IP-MASQ-AGENT ") {
			chain = append(chain, line)
			continue
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return append(lines, strings.Join(chain, ""))
}

// TestDaemonHealsUnderABadConfig breaks the file: rules still come back, the error is logged once per change, and a good file is
// taken up.
func TestDaemonHealsUnderABadConfig(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.Write(t, often+"nonMasqueradeCIDRs: [10.7.0.0/16]\n")
		agent := r.startReady(t)
		want := r.rules(t)
		for i, bad := range []string{"nonMasqueradeCIDR: []\n", "nonMasqueradeCIDRs: [10.7.0.1/16]\n"} {
			r.Write(t, bad)
			r.waitUnready(t, agent, []string{"did you mean nonMasqueradeCIDRs?", "is not aligned"}[i])
			for range 3 {
				r.Try(t, r.flush...)
				r.eventually(t, agent, "the rules of the last good policy", func() bool { return r.rules(t) == want })
			}
			if lines := strings.Count(agent.Output(), `level=ERROR msg="the config is bad" inForce="last good config, because the present one is bad"`); lines != i+1 {
				t.Errorf("after %d changes the error is in the log %d times\n%s", i+1, lines, agent.Output())
			}
		}
		if status, body := r.Probe("/livez"); status != http.StatusOK {
			t.Errorf("/livez under a bad config: %d %s", status, body)
		}
		r.Write(t, often+"nonMasqueradeCIDRs: [10.8.0.0/16]\n")
		r.waitReady(t, agent)
		if got := r.rules(t); !strings.Contains(got, "10.8.0.0/16") || strings.Contains(got, "10.7.0.0/16") {
			t.Errorf("after the repair:\n%s", got)
		}
	})
}

// TestDaemonStartsUnderABadConfig has no last good policy in memory: the persisted one counts, and else the defaults.
func TestDaemonStartsUnderABadConfig(t *testing.T) {
	for _, c := range []struct{ name, persisted, says, logs string }{
		{"persisted", `{"settings":{"chain":"IP-MASQ-AGENT","sources":"pods","ipv6":false,"randomFully":true},"nonMasqueradeCIDRs":["10.7.0.0/16"],"masqLinkLocal":false,"masqLinkLocalIPv6":false}`, "10.7.0.0/16", string(agent.OriginPersisted)},
		{"nothing persisted", "", "172.16.0.0/12", string(agent.OriginFallback)},
		{"persisted in pieces", `{"settings":{"chain":`, "172.16.0.0/12", string(agent.OriginFallback)},
	} {
		t.Run(c.name, func(t *testing.T) {
			each(t, func(t *testing.T, r *rig) {
				if c.persisted != "" {
					overwrite(t, filepath.Join(r.DataDir, "policy.json"), c.persisted)
				}
				r.Write(t, "masqLinkLocal: 1\n")
				daemon := r.start(t)
				r.waitUnready(t, daemon, "masqLinkLocal is the number 1")
				if got := r.rules(t); !strings.Contains(got, c.says) {
					t.Errorf("want %s in\n%s\n%s", c.says, got, daemon.Output())
				}
				if log := daemon.Output(); !strings.Contains(log, "the config is bad\" inForce=\""+c.logs+"\"") {
					t.Errorf("want %q in the log:\n%s", c.logs, log)
				}
				r.Write(t, never+"nonMasqueradeCIDRs: [10.8.0.0/16]\n")
				r.waitReady(t, daemon)
				if got := read(t, filepath.Join(r.DataDir, "policy.json")); !strings.Contains(got, "10.8.0.0/16") {
					t.Errorf("persisted then: %s", got)
				}
			})
		})
	}
}

// TestDaemonKeepsCounters sends connections and lets resyncs go by.
func TestDaemonKeepsCounters(t *testing.T) {
	eachIPTables(t, func(t *testing.T, r *rig) {
		pod := r.AddPod(t, "a", attached[1].Addresses[0].String())
		record(t, r.StateDir)
		r.Write(t, often)
		r.startReady(t)
		for want := 1; want <= 3; want++ {
			if seen, err := pod.Seen("udp", r.Internet.IPv4); err != nil || seen.Addr().String() != "192.0.2.1" {
				t.Fatalf("seen as %v, %v", seen, err)
			}
			time.Sleep(500 * time.Millisecond) // two resyncs and a half
			if got := strings.Fields(lastLine(r.nat(t, "-L", "IP-MASQ-AGENT", "-v", "-x", "-n")))[0]; got != []string{"", "1", "2", "3"}[want] {
				t.Errorf("after %d connections the rule counted %s", want, got)
			}
		}
	})
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// TestDaemonWritesNothing reads what reaches iptables-restore, and where rules have handles, those.
func TestDaemonWritesNothing(t *testing.T) {
	eachIPTables(t, func(t *testing.T, r *rig) {
		netnstest.Require(t, "nft")
		record(t, r.StateDir)
		log := r.recordWrites(t)
		r.Write(t, often)
		agent := r.startReady(t)
		time.Sleep(time.Second) // the start is over
		before, handles := read(t, log), r.Run(t, "nft", "-a", "list", "ruleset")
		if !strings.Contains(before, "-A IP-MASQ-AGENT ") {
			t.Fatalf("the wrapper saw nothing:\n%s", before)
		}
		time.Sleep(2 * time.Second)
		for line := range strings.Lines(strings.TrimPrefix(read(t, log), before)) {
			if !strings.HasPrefix(line, "*nat") && !strings.HasPrefix(line, "-S ") && !strings.HasPrefix(line, "-C ") && !strings.HasPrefix(line, "COMMIT") {
				t.Errorf("written while nothing changed: %s", line)
			}
		}
		if diff := cmp.Diff(handles, r.Run(t, "nft", "-a", "list", "ruleset")); diff != "" {
			t.Errorf("the ruleset changed:\n%s", diff)
		}
		if lines := strings.Count(agent.Output(), "rules put in place"); lines != 1 {
			t.Errorf("the log has %d times that rules were put in place:\n%s", lines, agent.Output())
		}
	})
}

// recordWrites puts a program in front of iptables-restore that keeps a copy of the input, and returns where.
func (r *rig) recordWrites(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	for _, family := range []string{"iptables-", "ip6tables-"} {
		name := family + r.Name + "-restore"
		program := strings.TrimSpace(r.Run(t, "sh", "-c", "command -v "+name))
		script := "#!/bin/sh\ntee -a " + log + " | " + program + ` "$@"` + "\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.SetPATH(dir + ":" + r.Path(t))
	return log
}
