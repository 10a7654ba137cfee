package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
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

// storm adds and removes rules until the time is over.
func (r *rig) storm(d time.Duration, written *atomic.Int64) error {
	return r.Do(func() error {
		conn, err := nftables.New(nftables.AsLasting())
		if err != nil {
			return err
		}
		defer func() { _ = conn.CloseLasting() }()
		var chains []*nftables.Chain
		for _, name := range []string{"nat", "others"} {
			table := conn.AddTable(&nftables.Table{Name: name, Family: nftables.TableFamilyIPv4})
			chains = append(chains, conn.AddChain(&nftables.Chain{Name: "STORM", Table: table}))
		}
		for end := time.Now().Add(d); time.Now().Before(end); {
			for i := range stormBurst {
				chain := chains[i%len(chains)]
				conn.AddRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept}}})
			}
			if err := conn.Flush(); err != nil {
				return fmt.Errorf("write: %w", err)
			}
			written.Add(stormBurst)
			for _, chain := range chains {
				conn.FlushChain(chain)
			}
			if err := conn.Flush(); err != nil {
				return fmt.Errorf("flush: %w", err)
			}
		}
		return nil
	})
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
