package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// TestTwoConflistsWithDifferentBackends: the second network's ADD is refused with the names of both backends, and neither that
// nor its DEL changes what the first network's pods have.
func TestTwoConflistsWithDifferentBackends(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		p := r.attached(t, "a")
		want := r.standing(t)
		for _, v := range testkit.Variants() {
			if v.Choice == r.Choice {
				continue
			}
			other := r.as(v)
			q := other.newPod(t, "b")
			q.Network = "others"
			got := other.plugin(t, "ADD", q)
			if errorCode(t, got) != 101 {
				t.Fatalf("ADD with %s beside %s: exit %d, want code 101\n%s%s", v.Choice, r.Choice, got.Code, got.Stdout, got.Stderr)
			}
			for _, name := range []string{v.Choice, string(r.Kind)} {
				if !strings.Contains(got.Stdout, name) {
					t.Errorf("the error does not name %s: %s", name, got.Stdout)
				}
			}
			if got := other.plugin(t, "DEL", q); got.Code != 0 {
				t.Errorf("DEL of what was refused: %s%s", got.Stdout, got.Stderr)
			}
			if now := r.standing(t); now != want {
				t.Errorf("the rules changed from\n%s\nto\n%s", want, now)
			}
			break
		}
		if got := r.plugin(t, "CHECK", p); got.Code != 0 {
			t.Errorf("CHECK of the first network: %s%s", got.Stdout, got.Stderr)
		}
		r.wantSeen(t, p, nodeAddress)
	})
}

// TestChainOfTheEntryBeforeTheAgent: a plugin's entry with another chain came first. The agent moves the pods to its own policy,
// nothing of the other chain decides any more, and DEL and cleanup leave nothing.
func TestChainOfTheEntryBeforeTheAgent(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		p := r.newPod(t, "a")
		const key = `"masqChain": "MY-MASQ"`
		if got := r.plugin(t, "ADD", p, key); got.Code != 0 {
			t.Fatalf("ADD: %s%s", got.Stdout, got.Stderr)
		}
		r.wantSeen(t, p, nodeAddress)
		r.Write(t, internetKept)
		agent := r.startReady(t)
		if rules := r.rules(t); strings.Contains(rules, "MY-MASQ") || !strings.Contains(rules, "IP-MASQ-AGENT") {
			t.Errorf("rules with the agent's policy\n%s", rules)
		}
		r.wantSeen(t, p, p.Addrs[0].String())
		if got := r.plugin(t, "DEL", p, key); got.Code != 0 {
			t.Errorf("DEL: %s%s", got.Stdout, got.Stderr)
		}
		if rules := r.rules(t); strings.Contains(rules, p.Addrs[0].String()) {
			t.Errorf("the pod's rule after DEL\n%s", rules)
		}
		if code := agent.Stop(syscall.SIGTERM, patience); code != 0 {
			t.Errorf("the agent ended with %d", code)
		}
		if got := r.Agent(t, "cleanup"); got.Code != 0 {
			t.Errorf("cleanup: exit %d\n%s", got.Code, got.Stderr)
		}
		if rules := r.rules(t); rules != "" {
			t.Errorf("left by cleanup\n%s", rules)
		}
	})
}

// TestCleanupOfAnotherChainWithoutRecords: the state directory is lost, and cleanup finds the chain by the root rule's comment.
func TestCleanupOfAnotherChainWithoutRecords(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		p := r.newPod(t, "a")
		if got := r.plugin(t, "ADD", p, `"masqChain": "MY-MASQ"`); got.Code != 0 {
			t.Fatalf("ADD: %s%s", got.Stdout, got.Stderr)
		}
		entries, err := os.ReadDir(r.StateDir)
		for _, e := range entries {
			if err == nil {
				err = os.RemoveAll(filepath.Join(r.StateDir, e.Name()))
			}
		}
		if err != nil || len(entries) == 0 {
			t.Fatalf("%v, %d entries", err, len(entries))
		}
		if got := r.Agent(t, "cleanup"); got.Code != 0 {
			t.Errorf("cleanup: exit %d\n%s", got.Code, got.Stderr)
		}
		if rules := r.rules(t); rules != "" {
			t.Errorf("left by cleanup\n%s", rules)
		}
	})
}

// TestStatusAfterABusyLock: the first ADD of a node met a held lock. That is no reason for STATUS to fail afterwards: the runtime
// would never send the ADD that succeeds.
func TestStatusAfterABusyLock(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		p := r.newPod(t, "a")
		hold := r.Start(t, netnstest.Cmd{Args: []string{"flock", "--close", filepath.Join(r.StateDir, "lock"), "sh", "-c", "echo held; exec sleep 1000"}})
		netnstest.Eventually(t, patience, "a held lock", func() bool { return hold.Output() == "held\n" })
		got := r.plugin(t, "ADD", p)
		if errorCode(t, got) != 11 {
			t.Fatalf("ADD with a held lock: exit %d, want code 11\n%s%s", got.Code, got.Stdout, got.Stderr)
		}
		hold.Stop(syscall.SIGKILL, patience)
		if got := r.plugin(t, "STATUS", p); got.Code != 0 {
			t.Errorf("STATUS once the lock is free: exit %d\n%s%s", got.Code, got.Stdout, got.Stderr)
		}
		r.add(t, p)
		r.wantSeen(t, p, nodeAddress)
	})
}

// TestStatusAfterAFlush: other software removed every rule, and no agent runs. The next ADD would put them back, so STATUS has no
// reason to fail.
func TestStatusAfterAFlush(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		p := r.attached(t, "a")
		r.sh(t, "nft flush ruleset; iptables-legacy -w -t nat -F; iptables-legacy -w -t nat -X")
		if got := r.plugin(t, "STATUS", p); got.Code != 0 {
			t.Errorf("STATUS: exit %d\n%s%s", got.Code, got.Stdout, got.Stderr)
		}
		q := r.attached(t, "b")
		r.wantSeen(t, q, nodeAddress)
	})
}

// errorCode is the code of the error that the plugin printed, 0 where it succeeded.
func errorCode(t *testing.T, r netnstest.Result) int {
	t.Helper()
	if r.Code == 0 {
		return 0
	}
	var printed struct{ Code int }
	if err := json.Unmarshal([]byte(r.Stdout), &printed); err != nil {
		t.Fatalf("exit %d without an error on stdout: %v\n%s%s", r.Code, err, r.Stdout, r.Stderr)
	}
	return printed.Code
}
