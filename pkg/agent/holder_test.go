package agent_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

const addConfig = `{"cniVersion":"1.0.0","name":"pods","type":"ip-masq","stateDir":"STATE","dataDir":"DATA",
"prevResult":{"cniVersion":"1.0.0","ips":[{"address":"10.244.0.7/24"}]}}`

// TestLocksOfAnUnprivilegedUser: he locks all that he can open, the lock file that an earlier version left open to everybody
// first of all; agent, plugin, and the agent's commands go on as if he was not there.
func TestLocksOfAnUnprivilegedUser(t *testing.T) {
	eachIPTables(t, func(t *testing.T, r *rig) {
		r.add(t, "one") // which leaves the plugin's files
		r.Sync(t)
		former := filepath.Join(r.StateDir, "agent.lock")
		err := errors.Join(os.Chmod(r.StateDir, 0o755), os.Remove(former), os.WriteFile(former, []byte("4711\n"), 0o644))
		if err != nil {
			t.Fatal(err)
		}
		locked := testkit.LockAsNobody(t, r.StateDir, r.DataDir, r.ConfDir, r.CacheDir)
		if !slices.Contains(locked, former) || !slices.Contains(locked, r.StateDir) {
			t.Fatalf("the user locked %v only", locked)
		}
		r.startReady(t)
		r.add(t, "two")
		if got := r.Agent(t, "run"); got.Code != 1 || !strings.Contains(got.Stderr, "agent.lock is held by process") {
			t.Errorf("a second agent: exit %d, %s", got.Code, got.Stderr)
		}
		if more := testkit.LockAsNobody(t, r.StateDir); slices.Contains(more, former) {
			t.Error("the user can lock what the agent locks")
		}
	})
}

// add runs the plugin's ADD, as a runtime would for a pod.
func (r *rig) add(t *testing.T, id string) {
	t.Helper()
	config := strings.NewReplacer("STATE", r.StateDir, "DATA", r.DataDir).Replace(addConfig)
	got := r.TryCmd(t, netnstest.Cmd{
		Args: []string{testkit.Program("ip-masq")}, Stdin: config,
		Env: []string{"CNI_COMMAND=ADD", "CNI_CONTAINERID=" + id, "CNI_NETNS=/proc/1/ns/net", "CNI_IFNAME=eth0", "CNI_PATH=/"},
	})
	if got.Code != 0 {
		t.Fatalf("ADD: exit %d\n%s%s", got.Code, got.Stdout, got.Stderr)
	}
}
