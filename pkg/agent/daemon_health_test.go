package agent_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// TestDaemonProbes follows the probes through a lock that another process holds from before the start on. Command and daemon
// give up on it with one clear sentence within 15 seconds; the daemon goes on trying.
func TestDaemonProbes(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.Write(t, often)
		release := netnstest.HoldLock(t, filepath.Join(r.StateDir, "lock"))
		start := time.Now()
		got := r.Agent(t, "sync")
		if took := time.Since(start); got.Code != 1 || took > netnstest.Limit(15*time.Second) || !strings.Contains(got.Stderr, "is held by process") {
			t.Errorf("sync: exit %d after %s\n%s", got.Code, took, got.Stderr)
		}
		agent := r.start(t)
		r.waitUnready(t, agent, "not read back from the kernel yet")
		r.alive(t)
		netnstest.Eventually(t, 15*time.Second, "the holder of the lock in /readyz", func() bool {
			status, body := r.Probe("/readyz")
			return status == http.StatusServiceUnavailable && strings.Contains(body, "is held by process")
		})
		r.alive(t)
		release()
		r.waitReady(t, agent)
		r.alive(t)
		if status, _ := r.Probe("/"); status != http.StatusNotFound {
			t.Errorf("/ answers %d", status)
		}
		if status, body := r.Probe("/metrics"); status != http.StatusOK || !strings.Contains(body, "\nip_masq_agent_ready 1\n") {
			t.Errorf("/metrics: %d\n%s", status, body)
		}
	})
}

// alive wants a daemon that is in trouble, or not, to be left alone.
func (r *rig) alive(t *testing.T) {
	t.Helper()
	for _, path := range []string{"/livez", "/healthz"} {
		if status, body := r.Probe(path); status != http.StatusOK || body != "ok\n" {
			t.Errorf("%s: %d %q", path, status, body)
		}
	}
}

// TestXtablesLock holds the lock that iptables-legacy shares with all its users.
func TestXtablesLock(t *testing.T) {
	eachOf(t, testkit.Only(backend.IPTablesLegacy), func(t *testing.T, r *rig) {
		r.Sync(t)
		release := netnstest.HoldLock(t, strings.TrimPrefix(r.Env[0], "XTABLES_LOCKFILE="))
		start := time.Now()
		got := r.Agent(t, "sync")
		if took := time.Since(start); got.Code != 1 || took > netnstest.Limit(15*time.Second) || !strings.Contains(got.Stderr, "lock") {
			t.Errorf("exit %d after %s\n%s", got.Code, took, got.Stderr)
		}
		release()
		r.Sync(t)
	})
}

// TestDaemonWithoutIPTables starts where no iptables is, and installs one later.
func TestDaemonWithoutIPTables(t *testing.T) {
	eachIPTables(t, func(t *testing.T, r *rig) {
		r.Write(t, often)
		later := t.TempDir() // in PATH from the start, empty until then
		hidden := func(line []string) []string {
			const hide = `for f in /usr/sbin/*tables* /sbin/*tables* /usr/local/sbin/*tables* /usr/bin/*tables* /bin/*tables*; do
				[ ! -e "$f" ] || mount --bind /dev/null "$f"
			done
			PATH="$0:$PATH" exec "$@"`
			return append([]string{"unshare", "--mount", "sh", "-c", hide, later}, line...)
		}
		program := multi(t, r)
		got := r.Try(t, hidden(r.Command("sync", "--backend=iptables"))...)
		if got.Code != 1 || !strings.Contains(got.Stderr, "install iptables") {
			t.Errorf("sync: exit %d\n%s", got.Code, got.Stderr)
		}
		agent := r.Start(t, netnstest.Cmd{Args: hidden(r.Command("run", "--backend=iptables"))})
		r.waitUnready(t, agent, "no usable backend")
		r.alive(t)
		install(t, program, later, r.Name)
		r.waitReady(t, agent)
		if got := r.rules(t); !strings.Contains(got, "10.0.0.0/8") {
			t.Errorf("after iptables appeared:\n%s", got)
		}
	})
}

// multi copies the program behind the variant's names to where no mount hides it.
func multi(t *testing.T, r *rig) string {
	t.Helper()
	program := strings.TrimSpace(r.Run(t, "sh", "-c", "readlink -f $(command -v iptables-"+r.Name+")"))
	copied := filepath.Join(t.TempDir(), filepath.Base(program))
	r.Run(t, "cp", program, copied)
	return copied
}

func install(t *testing.T, program, dir, variant string) {
	t.Helper()
	for _, name := range []string{"iptables-" + variant, "iptables-" + variant + "-restore"} {
		if err := os.Symlink(program, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDaemonCannotListen gives addresses that are well formed and not to be had.
func TestDaemonCannotListen(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		for _, address := range []string{"203.0.113.7:10278", "[2001:db8:ffff::1]:80"} {
			got := r.Agent(t, "run", "--metrics-bind-address", address)
			if got.Code != 1 || !strings.Contains(got.Stderr, "--metrics-bind-address") || strings.Count(got.Stderr, "\n") != 1 {
				t.Errorf("%s: exit %d\n%s", address, got.Code, got.Stderr)
			}
		}
		r.startReady(t)
		got := r.Agent(t, "run", "--state-dir", t.TempDir())
		if got.Code != 1 || !strings.Contains(got.Stderr, "address already in use") {
			t.Errorf("taken: exit %d\n%s", got.Code, got.Stderr)
		}
	})
}

// TestStateDirectories gives directories that cannot be used: one clear error, and what stands stays.
func TestStateDirectories(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.Sync(t)
		before := r.rules(t)
		file := filepath.Join(t.TempDir(), "file")
		overwrite(t, file, "")
		for _, c := range [][]string{
			{"run", "--state-dir", file}, {"sync", "--state-dir", file}, {"sync", "--state-dir", "/proc/nowhere"}, {"sync", "--data-dir", file},
		} {
			if got := r.Agent(t, c[0], c[1:]...); got.Code != 1 || !strings.Contains(lastLine(got.Stderr), c[2]) {
				t.Errorf("%v: exit %d\n%s", c, got.Code, got.Stderr)
			}
		}
		if after := r.rules(t); after != before {
			t.Errorf("the rules changed:\n%s", after)
		}
	})
}
