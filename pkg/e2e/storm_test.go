package e2e

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

const (
	stormTime     = 8 * time.Second
	stormInterval = 2 * time.Second
	// stormShare is what the agent, with the programs it starts, may take of one core during a storm.
	stormShare = 0.15
	// stormBurst is how many rules come and go with one transaction.
	stormBurst = 100
)

// TestStorm writes other software's rules, in the table that iptables-nft shares with all programs and in another, as fast as the kernel
// takes them: the agent's share of a core is bounded, and what breaks meanwhile is repaired no later than by a resync.
func TestStorm(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		p := r.attached(t, "a")
		r.Write(t, fmt.Sprintf("resyncInterval: %s\n", stormInterval))
		agent := r.startReady(t)
		want := r.standing(t)
		var written atomic.Int64
		done := make(chan error, 1)
		before, begin := cpuTime(t, agent.Pid), time.Now()
		go func() { done <- r.storm(stormTime, &written) }()
		time.Sleep(stormTime / 4)
		best := time.Hour
		for range 3 {
			r.sh(t, damagesOf(r.Variant)[1].script)
			best = min(best, r.eventually(t, agent, "repaired in the storm", func() bool { return r.standing(t) == want }))
		}
		if best > stormInterval+500*time.Millisecond {
			t.Errorf("the quickest of three repairs in the storm took %s, want no more than the resync interval, %s", best, stormInterval)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		elapsed, used := time.Since(begin), cpuTime(t, agent.Pid)-before
		share, rate := used.Seconds()/elapsed.Seconds(), float64(written.Load())/elapsed.Seconds()
		t.Logf("%.0f rules a second; the agent took %.1f %% of a core; repaired in %s", rate, 100*share, best.Round(time.Millisecond))
		if share > stormShare {
			t.Errorf("the agent took %.0f %% of a core", 100*share)
		}
		if rate < 1000 {
			t.Errorf("%.0f rules a second are no storm", rate)
		}
		r.wantSeen(t, p, nodeAddress)
	})
}

// storm adds and removes rules until the time is over: each run of nft is one transaction.
func (r *rig) storm(d time.Duration, written *atomic.Int64) error {
	var add, flush strings.Builder
	for _, table := range []string{"nat", "others"} {
		fmt.Fprintf(&add, "add table ip %s\nadd chain ip %[1]s STORM\n", table)
		add.WriteString(strings.Repeat("add rule ip "+table+" STORM counter accept\n", stormBurst/2))
		fmt.Fprintf(&flush, "flush chain ip %s STORM\n", table)
	}
	for end := time.Now().Add(d); time.Now().Before(end); written.Add(stormBurst) {
		for _, script := range []string{add.String(), flush.String()} {
			got, err := r.Exec(context.Background(), netnstest.Cmd{Args: []string{"nft", "-f", "-"}, Stdin: script})
			if err != nil || got.Code != 0 {
				return fmt.Errorf("nft: exit %d, %w\n%s", got.Code, err, got.Stderr)
			}
		}
	}
	return nil
}

// tick is the unit of /proc/PID/stat (USER_HZ, the same on every architecture).
const tick = 10 * time.Millisecond

// cpuTime is what a process and those of its children that ended have used, in user and kernel mode.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	// The second field, the name, may hold anything; utime, stime, cutime and cstime are the 14th to 17th.
	_, rest, _ := strings.Cut(string(data), ") ")
	var sum time.Duration
	for _, field := range strings.Fields(rest)[11:15] {
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		sum += time.Duration(n) * tick
	}
	return sum
}
