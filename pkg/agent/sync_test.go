package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// persisted is the policy that the plugin will use.
func (r *rig) persisted(t *testing.T) string {
	t.Helper()
	return read(t, filepath.Join(r.DataDir, "policy.json"))
}

// TestCommandsBesideDaemon: commands that change the node in another way than the daemon refuse while one runs, and name it.
func TestCommandsBesideDaemon(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.Write(t, never+"nonMasqueradeCIDRs: [10.7.0.0/16]\n")
		agent := r.startReady(t, "--enable-ipv6")
		rules, persisted := r.rules(t), r.persisted(t)
		for _, line := range [][]string{
			{"sync", "--masq-chain=OTHER"},
			{"sync", "--config", filepath.Join(t.TempDir(), "absent")},
			{"cleanup"},
		} {
			got := r.Agent(t, line[0], line[1:]...)
			names := fmt.Sprintf("held by process %d (ip-masq-agent)", agent.Pid)
			if got.Code != 1 || strings.Count(got.Stderr, "\n") != 1 || !strings.Contains(got.Stderr, names) || !strings.Contains(got.Stderr, "end it first") {
				t.Errorf("%v: exit %d, want 1 and %q\n%s", line, got.Code, names, got.Stderr)
			}
		}
		if diff := cmp.Diff(rules+persisted, r.rules(t)+r.persisted(t)); diff != "" {
			t.Errorf("rules or persisted policy changed (-before +after):\n%s", diff)
		}
	})
}

// TestSyncTakesPersistedSettings: what the daemon was told by flags counts for every flag that a later sync is not given.
func TestSyncTakesPersistedSettings(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.Sync(t, "--masq-chain=NODE-MASQ", "--enable-ipv6", "--to-ports=2000-3000", "--random-fully=false", "--nomasq-all-reserved-ranges")
		before := r.persisted(t)
		r.Sync(t)
		if diff := cmp.Diff(before, r.persisted(t)); diff != "" {
			t.Errorf("without flags (-before +after):\n%s", diff)
		}
		if got := r.Agent(t, "render"); !strings.Contains(got.Stdout, "NODE-MASQ") {
			t.Errorf("render shows something else:\n%s", got.Stdout)
		}
		r.Sync(t, "--to-ports=", "--nomasq-all-reserved-ranges=false")
		after := r.persisted(t)
		for text, want := range map[string]bool{`"NODE-MASQ"`: true, `"ipv6":true`: true, `"randomFully":false`: true, "2000": false, "100.64.0.0/10": false} {
			if strings.Contains(after, text) != want {
				t.Errorf("%s is there: %t, want %t in %s", text, !want, want, after)
			}
		}
	})
}

// TestSyncUnderAnUnknownFormat: settings that cannot be read are not guessed, and the command says so.
func TestSyncUnderAnUnknownFormat(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.Sync(t)
		path := filepath.Join(r.DataDir, "policy.json")
		overwrite(t, path, `{"version":99,"settings":{"chain":"OTHER"}}`)
		got := r.Agent(t, "sync")
		if got.Code != 0 || !strings.Contains(got.Stderr, "flags that are not given have their defaults") || !strings.Contains(got.Stderr, path) {
			t.Errorf("exit %d\n%s", got.Code, got.Stderr)
		}
		if after := r.persisted(t); !strings.Contains(after, `"IP-MASQ-AGENT"`) || strings.Contains(after, "99") {
			t.Errorf("persisted: %s", after)
		}
	})
}

// bareEtc runs a command where /etc has nothing, as on a host whose agent runs in a container with a ConfigMap.
func (r *rig) bareEtc(t *testing.T, line ...string) netnstest.Result {
	t.Helper()
	return r.Try(t, append([]string{"unshare", "--mount", "sh", "-c", `mount -t tmpfs none /etc && exec "$0" "$@"`}, line...)...)
}

// withoutConfig is a command line without --config and its value.
func withoutConfig(line []string) []string {
	var rest []string
	for i := 0; i < len(line); i++ {
		if line[i] == "--config" {
			i++
			continue
		}
		rest = append(rest, line[i])
	}
	return rest
}

// TestSyncWhereTheFileIsElsewhere: there is no file at the default path, but a policy that came from another one. It stays.
func TestSyncWhereTheFileIsElsewhere(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.Write(t, "nonMasqueradeCIDRs: [10.7.0.0/16]\n")
		r.Sync(t)
		rules, persisted := r.rules(t), r.persisted(t)
		for range 2 {
			if got := r.bareEtc(t, withoutConfig(r.Command("sync"))...); got.Code != 0 {
				t.Fatalf("sync: exit %d\n%s", got.Code, got.Stderr)
			}
			r.Try(t, r.flush...)
		}
		r.bareEtc(t, withoutConfig(r.Command("sync"))...)
		if diff := cmp.Diff(rules+persisted, r.rules(t)+r.persisted(t)); diff != "" {
			t.Errorf("rules or persisted policy changed (-before +after):\n%s", diff)
		}
		status := r.bareEtc(t, withoutConfig(r.Command("status"))...)
		if status.Code != 0 || !strings.Contains(status.Stdout, "persisted policy, because there is no config file here") || !strings.Contains(status.Stdout, "drift       none") {
			t.Errorf("status: exit %d\n%s%s", status.Code, status.Stdout, status.Stderr)
		}
	})
}

// TestConfigAtTheDefaultPath is optional, as the Kubernetes agent's is, also where the path is spelled out.
func TestConfigAtTheDefaultPath(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		status := r.bareEtc(t, withoutConfig(r.Command("status"))...)
		if status.Code != 0 || !strings.Contains(status.Stdout, "defaults, because there is no config file") {
			t.Errorf("status: exit %d\n%s%s", status.Code, status.Stdout, status.Stderr)
		}
		for _, line := range [][]string{
			withoutConfig(r.Command("sync")),
			r.Command("sync", "--config", "/etc/config/ip-masq-agent"),
			r.Command("render", "--config=/etc/config/ip-masq-agent"),
		} {
			if got := r.bareEtc(t, line...); got.Code != 0 {
				t.Errorf("%v: exit %d\n%s", line, got.Code, got.Stderr)
			}
		}
		if got := r.rules(t); !strings.Contains(got, "172.16.0.0/12") {
			t.Errorf("the defaults are not in force:\n%s", got)
		}
	})
}

// TestConfigThatIsNotThere names a path that does not exist: an error like any other, that loses nothing.
func TestConfigThatIsNotThere(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.Write(t, "nonMasqueradeCIDRs: [10.7.0.0/16]\n")
		r.Sync(t)
		rules, persisted := r.rules(t), r.persisted(t)
		absent := filepath.Join(t.TempDir(), "absent")
		for _, line := range [][]string{r.Command("sync", "--config", absent), r.Command("render", "--config", absent), r.Command("sync", "--config", absent+"/deeper")} {
			if got := r.Try(t, line...); got.Code != 1 || !strings.Contains(got.Stderr, absent) || !strings.Contains(got.Stderr, "no such file or directory") {
				t.Errorf("%v: exit %d\n%s", line[1:], got.Code, got.Stderr)
			}
		}
		r.Try(t, r.flush...)
		agent := r.start(t, "--config", absent)
		r.waitUnready(t, agent, absent+": cannot be read: no such file or directory")
		r.eventually(t, agent, "healed", func() bool { return r.rules(t) == rules })
		if got := r.persisted(t); got != persisted {
			t.Errorf("persisted: %s", got)
		}
		if err := os.WriteFile(absent, []byte("nonMasqueradeCIDRs: [10.8.0.0/16]\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		r.waitReady(t, agent)
		if got := r.rules(t); !strings.Contains(got, "10.8.0.0/16") {
			t.Errorf("after it appeared:\n%s", got)
		}
	})
}
