package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// TestHostRoot: an agent in a container without iptables runs the one of the host, whose root is mounted there read-only (but
// for /run, which is a mount of its own, and holds the xtables lock), and where the runtime's seccomp profile refuses unshare(2)
// and setns(2), as the default ones do. The links of Debian's alternatives are absolute and lead astray if they are followed
// from the container's root.
func TestHostRoot(t *testing.T) {
	eachIPTables(t, func(t *testing.T, r *rig) {
		r.inContainer(t, "sync")
		if standing := r.standing(t); !strings.Contains(standing, "MASQUERADE") {
			t.Errorf("nothing stands in the kernel:\n%s", standing)
		}
		if out := r.inContainer(t, "status"); !strings.Contains(out, "every other IPv4               0 connections") {
			t.Errorf("status has no counters:\n%s", out)
		}
		r.inContainer(t, "cleanup")
		if standing := r.standing(t); strings.Contains(standing, "MASQ") {
			t.Errorf("cleanup left\n%s", standing)
		}
	})
}

// inContainer runs a command of the agent where there is no iptables but below the host's root.
func (r *rig) inContainer(t *testing.T, command string) string {
	t.Helper()
	root := t.TempDir()
	line := strings.Join(r.Command(command, "--host-root", root), " ")
	script := fmt.Sprintf(`
mount --rbind / %[1]s && mount -o remount,bind,ro %[1]s && mount -t tmpfs run %[1]s/run
export XTABLES_LOCKFILE=/run/xtables.lock
mount -t tmpfs empty /usr/sbin && ! test -e /usr/sbin/iptables
PATH=/nowhere:%[2]s strace -f -qq -o /dev/null -e trace=unshare,setns -e inject=unshare,setns:error=EPERM %[3]s`, root, r.path(), line)
	got := r.Try(t, "unshare", "-m", "sh", "-ec", script)
	if got.Code != 0 {
		t.Fatalf("%s: exit %d\n%s", command, got.Code, got.Stderr)
	}
	return got.Stdout
}

// TestHostRootMissing: a mount that was forgotten is named, instead of being taken for a host without iptables.
func TestHostRootMissing(t *testing.T) {
	r := newRig(t, testkit.Variants()[0])
	got := r.Agent(t, "sync", "--host-root", "/no/such/mount")
	if got.Code != 2 || !strings.Contains(got.Stderr, "--host-root") {
		t.Errorf("exit %d: %s", got.Code, got.Stderr)
	}
}
