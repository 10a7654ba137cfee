package e2e

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// sample returns what /metrics tells of one series, empty where it tells nothing.
func (r *rig) sample(t *testing.T, series string) string {
	t.Helper()
	status, page := r.Probe("/metrics")
	if status != 200 {
		t.Fatalf("/metrics: %d %s", status, page)
	}
	_, rest, found := strings.Cut(page, "\nip_masq_agent_"+series+" ")
	if !found {
		return ""
	}
	value, _, _ := strings.Cut(rest, "\n")
	return value
}

// wantSamples waits until series have values.
func (r *rig) wantSamples(t *testing.T, agent *netnstest.Process, when string, want map[string]string) {
	t.Helper()
	for series, value := range want {
		deadline := time.Now().Add(patience)
		for got := r.sample(t, series); got != value; got = r.sample(t, series) {
			if time.Now().After(deadline) {
				t.Errorf("%s: %s is %q, want %q\n%s", when, series, got, value, agent.Output())
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// packets are the series of both families and verdicts.
func packets(masquerade4, keep4, masquerade6, keep6 int) map[string]string {
	return map[string]string{
		`packets_total{family="ipv4",verdict="masquerade"}`: fmt.Sprint(masquerade4),
		`packets_total{family="ipv4",verdict="keep"}`:       fmt.Sprint(keep4),
		`packets_total{family="ipv6",verdict="masquerade"}`: fmt.Sprint(masquerade6),
		`packets_total{family="ipv6",verdict="keep"}`:       fmt.Sprint(keep6),
	}
}

// byPrefix are the series of three prefixes; -1 is for one that must not be there.
func byPrefix(ten, twelve, internet int, internetPrefix string) map[string]string {
	want := map[string]string{}
	for series, packets := range map[string]int{
		`family="ipv4",prefix="10.0.0.0/8",verdict="keep"`:                   ten,
		`family="ipv4",prefix="172.16.0.0/12",verdict="keep"`:                twelve,
		`family="ipv4",prefix="` + internetPrefix + `",verdict="keep"`:       internet,
		`family="ipv4",prefix="224.0.0.0/4",verdict="keep"`:                  -1, // which no file has
		`family="ipv4",prefix="` + internetPrefix + `",verdict="masquerade"`: -1,
	} {
		want["prefix_packets_total{"+series+"}"] = map[bool]string{true: "", false: fmt.Sprint(packets)}[packets < 0]
	}
	return want
}

// TestMetricsCount: connections are counted by family, verdict and prefix on every backend, and the counts go on through a new policy, which
// ends connections, and through a repair, which is counted too. A prefix that leaves the policy takes its count along.
func TestMetricsCount(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.Write(t, "resyncInterval: 1s\n")
		agent := r.startReady(t, "--enable-ipv6")
		p := r.attached(t, "pod")
		connect := func(to netip.Addr, times int) {
			t.Helper()
			for range times {
				if _, err := p.Seen("udp", to); err != nil {
					t.Fatal(err)
				}
			}
		}
		r.wantSamples(t, agent, "before any packet", packets(0, 0, 0, 0))
		connect(r.Internet.IPv4, 1)
		connect(r.Corp.IPv4, 2)
		connect(r.Internet.IPv6, 3)
		connect(r.Corp.IPv6, 4)
		r.wantSamples(t, agent, "at first", packets(1, 2, 3, 4))
		internet := r.Internet.IPv4.String() + "/32"
		r.wantSamples(t, agent, "at first", byPrefix(2, 0, -1, internet))
		r.wantSamples(t, agent, "at first", map[string]string{"connections_ended_total": "0", "attachments": "1", "drift": "0"})

		r.Write(t, "resyncInterval: 1s\nnonMasqueradeCIDRs: ["+r.Internet.IPv4.String()+"/32, 10.0.0.0/8, fc00::/7]\n")
		r.wantSamples(t, agent, "under the new policy", map[string]string{"connections_ended_total": "1"})
		r.wantSamples(t, agent, "under the new policy", packets(1, 2, 3, 4))
		r.wantSamples(t, agent, "under the new policy", byPrefix(2, -1, 0, internet))
		connect(r.Internet.IPv4, 1)
		r.wantSamples(t, agent, "under the new policy", packets(1, 3, 3, 4))
		r.wantSamples(t, agent, "under the new policy", byPrefix(2, -1, 1, internet))

		before := r.repairs(t)
		r.sh(t, map[bool]string{
			true: "iptables -w -t nat -F IP-MASQ-AGENT", false: "nft flush chain inet ip-masq-agent IP-MASQ-AGENT",
		}[r.IsIPTables()])
		r.eventually(t, agent, "a repair is counted", func() bool { return r.repairs(t) == before+1 })
		connect(r.Corp.IPv4, 1)
		r.wantSamples(t, agent, "after a repair", packets(1, 4, 3, 4))
		r.wantSamples(t, agent, "after a repair", byPrefix(3, -1, 1, internet))
		r.sh(t, map[bool]string{
			true: "iptables -w -t nat -F IP-MASQ-AGENT", false: "nft delete table inet ip-masq-agent",
		}[r.IsIPTables()])
		r.eventually(t, agent, "another repair is counted", func() bool { return r.repairs(t) == before+2 })
		time.Sleep(1100 * time.Millisecond) // a reading between the repair and the next packet, or the rule's 1 could be that of before
		r.wantSamples(t, agent, "after another repair", byPrefix(3, -1, 1, internet))
		connect(r.Corp.IPv4, 1)
		r.wantSamples(t, agent, "after another repair", byPrefix(4, -1, 1, internet))
		r.wantSamples(t, agent, "after another repair", map[string]string{`prefix_packets_total{family="ipv6",prefix="fc00::/7",verdict="keep"}`: "4"})

		var many strings.Builder
		for i := range 101 {
			fmt.Fprintf(&many, "- 20.0.%d.0/24\n", i)
		}
		r.Write(t, "resyncInterval: 1s\nnonMasqueradeCIDRs:\n"+many.String())
		r.eventually(t, agent, "no prefixes of a long policy", func() bool {
			_, page := r.Probe("/metrics")
			return !strings.Contains(page, "ip_masq_agent_prefix_packets_total{")
		})
	})
}

var repaired = regexp.MustCompile(`\nip_masq_agent_repairs_total\{object="[a-z-]+",cause="[a-z]+"\} (\d+)`)

// repairs adds up the repairs of all objects.
func (r *rig) repairs(t *testing.T) (sum int) {
	t.Helper()
	_, page := r.Probe("/metrics")
	for _, m := range repaired.FindAllStringSubmatch(page, -1) {
		var number int
		if _, err := fmt.Sscan(m[1], &number); err != nil {
			t.Fatal(err)
		}
		sum += number
	}
	return sum
}

// TestScrapesStartNoProcess also on iptables, and while another process holds the node's lock a scrape is answered at once.
func TestScrapesStartNoProcess(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		netnstest.Require(t, "strace")
		r.Write(t, never)
		agent := r.startReady(t)
		p := r.attached(t, "pod")
		time.Sleep(2 * time.Second) // the start is over
		trace := r.Start(t, netnstest.Cmd{Args: []string{"strace", "-f", "-q", "-e", "trace=execve", "-p", fmt.Sprint(agent.Pid)}})
		time.Sleep(time.Second)
		for range 4 {
			r.wantSeen(t, p, nodeAddress)
			r.sample(t, "attachments")
			time.Sleep(1100 * time.Millisecond) // a scrape does not read the counters twice a second
		}
		if got := r.sample(t, `packets_total{family="ipv4",verdict="masquerade"}`); got != "4" {
			t.Errorf("%s packets were counted, want 4", got)
		}
		m := monitored{rig: r, agent: agent}
		m.holdLock(t, func() {
			begin := time.Now()
			r.sample(t, "attachments")
			if took := time.Since(begin); took > netnstest.Limit(time.Second) {
				t.Errorf("while the lock is held, a scrape takes %s", took)
			}
		})
		if out := trace.Output(); strings.Contains(out, "execve(") || strings.Contains(out, "strace:") {
			t.Errorf("scrapes started processes, or strace saw nothing:\n%s", out)
		}
		if r.IsIPTables() { // whose repairs do start one, which strace has to see
			r.sh(t, "iptables -w -t nat -F IP-MASQ-AGENT")
			_ = agent.Signal(syscall.SIGHUP)
			r.eventually(t, agent, "a process of a repair", func() bool { return strings.Contains(trace.Output(), "execve(") })
		}
		trace.Stop(syscall.SIGINT, patience)
	})
}
