package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// internetKept keeps the pods' addresses to the internet, where every default masquerades: who is seen tells which policy is
// in force.
const internetKept = never + "nonMasqueradeCIDRs: [10.0.0.0/8, 192.0.2.0/24]\n"

// bad is a file with the mistake that costs the Kubernetes agent's users most.
const bad = "nonMasqueradeCIDR: [10.0.0.0/8]\n"

// TestBadConfigKeepsHealing: the policy before the mistake stays, and is repaired as fast as ever.
func TestBadConfigKeepsHealing(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		p := r.attached(t, "a")
		own := p.Addrs[0].String()
		limit := time.Second
		interval := never
		if !r.Events {
			limit, interval = 2*time.Second, "resyncInterval: 1s\n"
		}
		r.Write(t, strings.Replace(internetKept, never, interval, 1))
		agent := r.startReady(t)
		want := r.standing(t)
		r.wantSeen(t, p, own)
		r.Write(t, bad)
		r.eventually(t, agent, "the mistake in /readyz", func() bool {
			status, body := r.Probe("/readyz")
			return status == 503 && strings.Contains(body, "did you mean nonMasqueradeCIDRs?")
		})
		r.repaired(t, agent, damagesOf(r.Variant)[1], p, own, want, limit)
		if status := r.status(t); status.Policy.Reason != "last good config, because the present one is bad" || status.Config.Error == nil ||
			!strings.Contains(*status.Config.Error, "did you mean") || len(status.Drift) > 0 {
			t.Errorf("status says %+v", status)
		}
		r.Write(t, never)
		r.eventually(t, agent, "the good file", func() bool { return seenAs(p.Pod, r.Internet.IPv4) == nodeAddress })
	})
}

// TestBadConfigAtStart has no last good policy in memory: the persisted one counts, and else the defaults.
func TestBadConfigAtStart(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		p := r.attached(t, "a")
		r.Write(t, bad)
		r.startBad(t)
		r.wantSeen(t, p, nodeAddress)
		r.Write(t, internetKept)
		r.Sync(t)
		r.Write(t, bad)
		r.sh(t, damagesOf(r.Variant)[0].script)
		r.startBad(t)
		r.wantSeen(t, p, p.Addrs[0].String())
	})
}

// startBad starts the agent, waits until it says that the config is bad, and ends it: the rules stay.
func (r *rig) startBad(t *testing.T) {
	t.Helper()
	agent := r.Start(t, netnstest.Cmd{Args: r.Command("run")})
	r.eventually(t, agent, "up, and not ready", func() bool {
		status, body := r.Probe("/readyz")
		return status == 503 && strings.Contains(body, "did you mean nonMasqueradeCIDRs?")
	})
	if code := agent.Stop(15, patience); code != 0 {
		t.Errorf("exit %d\n%s", code, agent.Output())
	}
}

// TestReboot loses the rules and the state directory: the first ADD brings the persisted policy back, and no agent is up.
func TestReboot(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.attached(t, "before")
		r.Write(t, internetKept+"masqueradeCIDRs: [192.0.2.128/25]\n")
		r.Sync(t, "--enable-ipv6")
		after := newRig(t, r.Variant) // the machine, booted again
		after.DataDir = r.DataDir
		p := after.attached(t, "after")
		after.wantSeen(t, p, p.Addrs[0].String())
		exception := after.Internet.AddAddr(t, "192.0.2.200")
		if got := seenAs(p.Pod, exception); got != nodeAddress {
			t.Errorf("to the exception seen as %s", got)
		}
		if got := seenAs(p.Pod, after.Internet.IPv6); got != "2001:db8::1" {
			t.Errorf("over IPv6, which the agent had switched on, seen as %s", got)
		}
		before := after.standing(t)
		overwrite(t, after.Config, read(t, r.Config))
		after.Sync(t, "--enable-ipv6")
		if now := after.standing(t); now != before {
			t.Errorf("the agent changed what the plugin had put in place:\n%s\n%s", before, now)
		}
	})
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
