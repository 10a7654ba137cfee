package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/node"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// fakeNode stands in for node and kernel on a clock of its own; the same cases on the real ones are in daemon_repair_test.go.
type fakeNode struct {
	began   time.Time
	sync    func(at time.Duration) (takes time.Duration, o outcome)
	history []string // when each sync began, and why

	config, rules, addresses chan struct{}
	hangups                  chan os.Signal
	ended                    atomic.Bool
}

// run loops for a while. sync says how long the one that begins at a time takes, and how it ends.
func (n *fakeNode) run(t *testing.T, during time.Duration, sync func(at time.Duration) (time.Duration, outcome), inputs func(n *fakeNode)) []string {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n.began, n.sync = time.Now(), sync
		n.config, n.rules, n.addresses, n.hangups = make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{}, 1), make(chan os.Signal, 1)
		ctx, cancel := context.WithTimeout(t.Context(), during)
		defer cancel()
		go inputs(n)
		l := &loop{
			log: slog.New(slog.DiscardHandler), configChanges: n.config, ruleChanges: n.rules, addressChanges: n.addresses, hangups: n.hangups,
			sync: func(ctx context.Context, reason string) outcome {
				at := time.Since(n.began)
				n.history = append(n.history, fmt.Sprintf("%s %s", at, reason))
				takes, o := n.sync(at)
				select {
				case <-ctx.Done():
				case <-time.After(takes):
				}
				return o
			},
		}
		l.run(ctx)
		n.ended.Store(true)
		time.Sleep(time.Second) // the inputs notice
	})
	return n.history
}

// storm reports a change of rules every 10 ms, as nfevents does while another program rewrites its own.
func storm(n *fakeNode) {
	for !n.ended.Load() {
		notify(n.rules)
		time.Sleep(10 * ms)
	}
}

// quiet reports nothing.
func quiet(*fakeNode) {}

// TestLoop reads as transcripts: when the loop synced, and why.
func TestLoop(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		during time.Duration
		sync   func(at time.Duration) (takes time.Duration, o outcome)
		inputs func(n *fakeNode)
		want   string
	}{
		{
			"nothing happens", 130 * time.Second,
			func(time.Duration) (time.Duration, outcome) { return 10 * ms, outcome{interval: time.Minute} }, quiet,
			"0s start, 1m0.01s resync interval, 2m0.02s resync interval",
		},
		{
			"syncs fail for five seconds", 6 * time.Second, failingFor(5 * time.Second), quiet,
			"0s start, 210ms retry, 620ms retry, 1.43s retry, 2.24s retry, 3.05s retry, 3.86s retry, 4.67s retry, 5.48s retry",
		},
		{
			"the same beside a stream of events: retries come as if there was none", 6 * time.Second, failingFor(5 * time.Second), storm,
			"0s start, 210ms retry, 620ms retry, 1.43s retry, 2.24s retry, 3.05s retry, 3.86s retry, 4.67s retry, 5.48s retry, " +
				"5.69s rules changed, 5.9s rules changed",
		},
		{
			"the lock is held for 12 seconds, and events come meanwhile", 13 * time.Second,
			func(at time.Duration) (time.Duration, outcome) { // waits for the lock for ten seconds at most
				if at >= 2*time.Second {
					return 20 * ms, outcome{interval: time.Minute, reading: 10 * ms}
				}
				return 10 * time.Second, outcome{failed: true, interval: time.Minute}
			},
			func(n *fakeNode) {
				time.Sleep(5 * time.Second)
				notify(n.rules)
				time.Sleep(5100 * ms)
				notify(n.rules)
			},
			"0s start, 10.2s retry",
		},
		{
			"a sync took long because it waited: the next change does not", 10 * time.Second,
			func(at time.Duration) (time.Duration, outcome) {
				if at == 0 {
					return 9 * time.Second, outcome{interval: time.Minute, reading: 3 * ms}
				}
				return 5 * ms, outcome{interval: time.Minute, reading: 3 * ms}
			},
			func(n *fakeNode) {
				time.Sleep(9010 * ms)
				notify(n.rules)
			},
			"0s start, 9.2s rules changed",
		},
		{
			"one change after a quiet time is looked at at once", 31 * time.Second,
			func(time.Duration) (time.Duration, outcome) {
				return 5 * ms, outcome{interval: time.Minute, reading: 90 * ms}
			},
			func(n *fakeNode) {
				time.Sleep(30 * time.Second)
				notify(n.rules)
			},
			"0s start, 30s rules changed",
		},
		{
			"a stream of events at a reading of 90 ms", 3 * time.Second,
			func(time.Duration) (time.Duration, outcome) {
				return 90 * ms, outcome{interval: time.Minute, reading: 90 * ms}
			}, storm,
			"0s start, 710ms rules changed, 1.42s rules changed, 2.13s rules changed, 2.84s rules changed",
		},
		{
			"events of others, where the kernel does not report ours", 3 * time.Second,
			func(time.Duration) (time.Duration, outcome) {
				return 5 * ms, outcome{interval: time.Minute, ignoreKernel: true}
			}, storm,
			"0s start",
		},
		{
			"config and SIGHUP do not wait", 2 * time.Second, failingFor(0),
			func(n *fakeNode) {
				time.Sleep(100 * ms)
				notify(n.config)
				time.Sleep(50 * ms)
				n.hangups <- syscall.SIGHUP
			},
			"0s start, 100ms config changed, 150ms SIGHUP",
		},
		{
			"the node's addresses change: that waits as pods do, also where the kernel does not report rules", 31 * time.Second,
			func(time.Duration) (time.Duration, outcome) {
				return 5 * ms, outcome{interval: time.Minute, reading: 50 * ms, ignoreKernel: true}
			},
			func(n *fakeNode) {
				time.Sleep(30 * time.Second)
				notify(n.addresses)
				time.Sleep(10 * ms)
				notify(n.addresses)
			},
			"0s start, 30s addresses changed, 30.505s addresses changed",
		},
		{
			"a config that changes while syncs fail", 400 * ms, failingFor(time.Second),
			func(n *fakeNode) {
				time.Sleep(100 * ms)
				notify(n.config)
			},
			"0s start, 100ms config changed",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := &fakeNode{}
			if diff := cmp.Diff(c.want, strings.Join(n.run(t, c.during, c.sync, c.inputs), ", ")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// failingFor fails until a time and needs 10 ms for each sync.
func failingFor(d time.Duration) func(at time.Duration) (time.Duration, outcome) {
	return func(at time.Duration) (time.Duration, outcome) {
		return 10 * ms, outcome{failed: at < d, interval: time.Minute}
	}
}

// TestBackground: a job that takes long gets the newest state next, no two run at once, and what nobody took is joined.
func TestBackground(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var got []string
		running := 0
		b := startBackground(ctx, func(_ context.Context, state string) {
			running++
			if running > 1 {
				t.Error("two at once")
			}
			got = append(got, state)
			time.Sleep(10 * time.Second)
			running--
		}, func(older, newer string) string { return older + "+" + newer })
		for _, state := range []string{"a", "b", "c", "d"} {
			b.submit(state)
			time.Sleep(time.Second)
		}
		time.Sleep(time.Minute)
		b.submit("e")
		time.Sleep(time.Minute)
		synctest.Wait()
		if diff := cmp.Diff([]string{"a", "b+c+d", "e"}, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// TestReportOfEgress: which source addresses the node lacks is in the log once per change, and a change of the node's addresses is no
// repair.
func TestReportOfEgress(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	r := report{log: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: timeless}))}
	inForce := policy.Policy{Egress: []policy.Egress{
		{Destinations: prefixes("203.0.113.0/24"), SourceAddresses: prefixes("192.0.2.0/28")},
		{Destinations: prefixes("198.51.100.7/32"), SourceAddresses: prefixes("192.0.2.16/28"), WhenMissing: policy.MissingDrop},
	}}
	sync := func(p policy.Policy, missing bool, addresses ...netip.Addr) {
		t.Helper()
		result := node.Result{Backend: backend.NFTables, Changed: !slices.Equal(addresses, r.addresses), Addresses: addresses, Egress: []ruleset.Egress{{Group: 1, Addresses: addresses}, {Group: 2}}}
		if missing {
			result.Egress[0].Missing, result.Egress[1].Missing = []policy.Family{policy.IPv4}, []policy.Family{policy.IPv4}
		}
		if r.sync(result, nil, p, OriginConfig, author{}) {
			t.Error("taken for a repair")
		}
	}
	address := netip.MustParseAddr("192.0.2.1")
	sync(inForce, true)
	sync(inForce, true)
	sync(inForce, false, address)
	sync(inForce, false, address)
	sync(inForce, true)
	inForce.Egress = slices.Clone(inForce.Egress)
	inForce.Egress[1].WhenMissing = ""
	sync(inForce, true)
	want := `level=INFO msg="rules found in place" backend=nftables pods=0 policy="config file"
level=WARN msg="the node has none of the source addresses of an egress group: connections to its destinations are masqueraded" group=1 destinations=[203.0.113.0/24] sourceAddresses=[192.0.2.0/28] families=[IPv4]
level=WARN msg="the node has none of the source addresses of an egress group: connections to its destinations are dropped" group=2 destinations=[198.51.100.7/32] sourceAddresses=[192.0.2.16/28] families=[IPv4]
level=INFO msg="rules changed to the node's addresses" backend=nftables pods=0 sourceAddresses=[192.0.2.1]
level=INFO msg="the node has source addresses of an egress group again" group=1 destinations=[203.0.113.0/24] sourceAddresses=[192.0.2.0/28] addresses=[192.0.2.1]
level=INFO msg="the node has source addresses of an egress group again" group=2 destinations=[198.51.100.7/32] sourceAddresses=[192.0.2.16/28] addresses=[]
level=INFO msg="rules changed to the node's addresses" backend=nftables pods=0 sourceAddresses=[]
level=WARN msg="the node has none of the source addresses of an egress group: connections to its destinations are masqueraded" group=1 destinations=[203.0.113.0/24] sourceAddresses=[192.0.2.0/28] families=[IPv4]
level=WARN msg="the node has none of the source addresses of an egress group: connections to its destinations are dropped" group=2 destinations=[198.51.100.7/32] sourceAddresses=[192.0.2.16/28] families=[IPv4]
level=WARN msg="the node has none of the source addresses of an egress group: connections to its destinations are masqueraded" group=2 destinations=[198.51.100.7/32] sourceAddresses=[192.0.2.16/28] families=[IPv4]
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// timeless leaves the time out of a log.
func timeless(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// TestReport reads as a transcript of the log: each line says what happened, and a failure is there once.
func TestReport(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	r := report{log: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: timeless}))}
	result := node.Result{Backend: backend.NFTables, Pods: 2}
	changed, adopted := result, result
	changed.Changed, changed.Repaired = true, []backend.Drift{{Object: backend.ObjectChain, Problem: backend.ProblemMissing, Detail: "IP-MASQ-AGENT"}}
	adopted.Changed, adopted.Adopted = true, 1
	busy := errors.New("the lock is held")
	var inForce policy.Policy
	for _, step := range []struct {
		result    node.Result
		err       error
		newPolicy bool
		repaired  bool
		by        string
	}{
		{result, busy, false, false, ""},
		{result, busy, false, false, ""},
		{result, nil, false, false, ""},
		{result, nil, false, false, ""},
		{changed, nil, false, true, ""},
		{changed, nil, false, true, "nft"},
		{changed, nil, true, false, ""},
		{adopted, nil, false, false, ""},
		{changed, busy, true, false, ""},
		{changed, nil, false, false, ""},
		{result, busy, false, false, ""},
		{result, nil, false, false, ""},
	} {
		inForce.MasqLinkLocal = inForce.MasqLinkLocal != step.newPolicy
		if repaired := r.sync(step.result, step.err, inForce, OriginConfig, author{name: step.by}); repaired != step.repaired {
			t.Errorf("%+v: a repair is %t", step.result, repaired)
		}
	}
	want := `level=ERROR msg="the rules could not be put in place; trying again" error="the lock is held"
level=INFO msg="rules found in place" backend=nftables pods=2 policy="config file"
level=INFO msg="rules repaired after an external change" backend=nftables pods=2 restored="[chain missing: IP-MASQ-AGENT]" repairs=1
level=INFO msg="rules repaired after an external change" backend=nftables pods=2 by=nft restored="[chain missing: IP-MASQ-AGENT]" repairs=2
level=INFO msg="rules changed to the new policy" backend=nftables pods=2 policy="config file"
level=INFO msg="rules changed to the new set of pods" backend=nftables pods=2 adopted=1 dropped=0
level=ERROR msg="the rules could not be put in place; trying again" error="the lock is held"
level=INFO msg="rules changed to the new policy" backend=nftables pods=2 policy="config file"
level=ERROR msg="the rules could not be put in place; trying again" error="the lock is held"
level=INFO msg="rules are in place again" backend=nftables pods=2 policy="config file"
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
