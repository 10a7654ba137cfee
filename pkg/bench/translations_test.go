package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/portbudget"
)

// The load of the translation log: new connections a second, each of which is one datagram and ends a second later or somewhat
// after, when the kernel collects it.
const (
	logRate    = 20_000
	logTime    = 10 * time.Second // TestMemory runs for an hour
	logPods    = 110
	logMetrics = "127.0.0.1:10290"
)

// TestTranslations measures an agent that logs every connection beside one that does not, which see the same load in turns, and
// what a sample of the source ports costs. The agents have one core each (GOMAXPROCS=1).
func TestTranslations(t *testing.T) {
	outDir(t)
	requireTools(t)
	r := newReport(fmt.Sprintf("Translations: an agent under %d new connections a second, all of them masqueraded", logRate))
	off, on := newLogged(t), newLogged(t, "--translation-log", filepath.Join(t.TempDir(), "log"))
	tab := &table{head: []string{"", "connections", "lines", "lost", "µs of CPU per connection", "resident, MiB, at first", "at last"}}
	var paired []float64
	for range rounds(1) {
		without, with := off.load(t), on.load(t)
		paired = append(paired, (with.cpu.Seconds()-without.cpu.Seconds())/float64(with.lines)*1e6)
		for name, m := range map[string]loaded{"off": without, "on": with} {
			tab.add(name, strconv.Itoa(m.sent), strconv.Itoa(m.lines), strconv.Itoa(m.lost), number(m.cpu.Seconds()/float64(m.sent)*1e6), number(m.first), number(m.last))
		}
		if with.lines != with.sent && with.lost == 0 {
			t.Errorf("%d connections and %d lines, and nothing is said to be lost", with.sent, with.lines)
		}
		r.goal("events that the kernel dropped", 0, float64(with.lost))
		r.goal("resident memory at last, over that at first", 1.2, with.last/with.first)
	}
	r.section("each load", tab)
	r.goal("µs of CPU per logged connection, over an agent that does not log", 15, median(paired))
	sampling(t, r)
	r.done(t, "translations.md")
}

// logged is a node with an agent under load.
type logged struct {
	*netnstest.Node
	*injector
	pid int
}

func newLogged(t *testing.T, flags ...string) *logged {
	t.Helper()
	n := netnstest.NewNode(t)
	n.SetPATH(netnstest.IPTables(t, "nft"))
	store := attachment.Store{Dir: filepath.Join(n.StateDir, "attachments")}
	for i := range logPods {
		owner := attachment.Owner{Network: "bench", ContainerID: sandbox(i), IfName: "eth0"}
		a := attachment.Attachment{Owner: owner, Pod: attachment.Pod{Namespace: "bench", Name: fmt.Sprintf("pod-%05d", i)}, Addresses: addresses(i)}
		if err := store.Put(a); err != nil {
			t.Fatal(err)
		}
	}
	args := append([]string{
		netnstest.Bin(t, "ip-masq-agent"), "run", "--state-dir", n.StateDir, "--data-dir", n.DataDir, "--cni-cache-dir", n.CacheDir, "--cni-conf-dir", n.ConfDir,
		"--backend", "nftables", "--metrics-bind-address", logMetrics,
	}, flags...)
	l := &logged{Node: n, injector: newInjector(t, n, logPods)}
	if err := n.Sysctl("net/netfilter/nf_conntrack_udp_timeout=1"); err != nil {
		t.Fatal(err)
	}
	l.pid = n.Start(t, netnstest.Cmd{Args: args, Env: []string{"GOMAXPROCS=1"}}).Pid
	netnstest.Eventually(t, 20*time.Second, "the agent is ready", func() bool { return l.metric("ready") == 1 })
	time.Sleep(3 * time.Second) // until the agent has nothing more to do
	return l
}

// sandbox is the container of the nth attachment.
func sandbox(n int) string { return fmt.Sprintf("%064d", n) }

// loaded is what one load cost.
type loaded struct {
	sent, lines, lost int
	cpu               time.Duration
	first, last       float64 // MiB
}

// load opens connections at the rate, a hundredth of it at a time, and waits until all are over.
func (l *logged) load(t *testing.T) (m loaded) {
	t.Helper()
	lines, lost, cpu := l.metric("translation_log_lines_total"), l.metric("translation_log_lost_total"), l.cpu(t)
	began := time.Now()
	for m.sent < int(logTime.Seconds())*logRate {
		if _, err := l.batch(logRate / 100); err != nil {
			t.Fatal(err)
		}
		m.sent += logRate / 100
		if m.sent == logRate*int(logTime.Seconds())/2 {
			m.first = l.resident(t)
		}
		time.Sleep(time.Until(began.Add(time.Duration(m.sent) * time.Second / logRate)))
	}
	m.last = l.resident(t)
	took := time.Since(began)
	l.awaitEnds(t)
	m.cpu = l.cpu(t) - cpu
	m.lines, m.lost = int(l.metric("translation_log_lines_total")-lines), int(l.metric("translation_log_lost_total")-lost)
	t.Logf("%d connections in %v: %+v", m.sent, took, m)
	return m
}

// awaitEnds waits until the kernel has collected what is over, and the agent has written of it.
func (l *logged) awaitEnds(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end) && l.tracked(t) > 0; time.Sleep(time.Second) {
		continue
	}
	time.Sleep(2 * time.Second)
}

func (l *logged) metric(name string) float64 {
	client := http.Client{Transport: &http.Transport{DialContext: l.DialContext, DisableKeepAlives: true}, Timeout: 10 * time.Second}
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+logMetrics+"/metrics", nil)
	if err != nil {
		return -1
	}
	response, err := client.Do(request)
	if err != nil {
		return -1
	}
	defer func() { _ = response.Body.Close() }()
	body, _ := io.ReadAll(response.Body)
	match := regexp.MustCompile(`(?m)^ip_masq_agent_` + name + ` (.*)$`).FindSubmatch(body)
	if match == nil {
		return -1
	}
	value, _ := strconv.ParseFloat(string(match[1]), 64)
	return value
}

// cpu is what the agent used so far, in ticks of 10 ms.
func (l *logged) cpu(t *testing.T) time.Duration {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", l.pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')'):]))
	user, _ := strconv.Atoi(fields[12])
	system, _ := strconv.Atoi(fields[13])
	return time.Duration(user+system) * 10 * time.Millisecond
}

func (l *logged) resident(t *testing.T) float64 {
	t.Helper()
	return statusOf(t, l.pid, "VmRSS")
}

func (l *logged) tracked(t *testing.T) (n int) {
	t.Helper()
	err := l.Do(func() error {
		data, err := os.ReadFile("/proc/thread-self/net/stat/nf_conntrack")
		if err == nil {
			var entries int64
			fields := strings.Fields(strings.SplitN(string(data), "\n", 3)[1])
			entries, err = strconv.ParseInt(fields[0], 16, 64)
			n = int(entries)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// sampleSize is how many connections the table has when it is sampled: nearly all that a node of 8 GiB keeps.
const sampleSize = 250_000

// sampling measures a sample of a full table: once all of it is masqueraded, and once the kernel leaves nearly all of it out.
func sampling(t *testing.T, r *report) {
	t.Helper()
	tab := &table{head: []string{"table", "CPU of a sample, ms", "next sample after, s", "share of a core, %"}}
	for _, masqueraded := range []bool{true, false} {
		n := netnstest.NewNode(t)
		name := "250k masqueraded"
		if masqueraded {
			n.Run(t, "nft", "table ip x { chain c { type nat hook postrouting priority 100; oifname internet masquerade; }; }")
		} else {
			name = "250k, none masqueraded"
			n.Run(t, "nft", "table ip x { chain c { type nat hook postrouting priority 100; oifname corp masquerade; }; }")
		}
		in := newInjector(t, n, logPods)
		if err := n.Sysctl("net/netfilter/nf_conntrack_udp_timeout=600"); err != nil {
			t.Fatal(err)
		}
		for range sampleSize / 2500 {
			if _, err := in.batch(2500); err != nil {
				t.Fatal(err)
			}
		}
		var took []float64
		err := n.Do(func() error {
			s, err := portbudget.NewSampler()
			if err != nil {
				return err
			}
			defer s.Close()
			for range rounds(7) {
				report, err := s.Sample(nil, nil)
				if err != nil {
					return err
				}
				if masqueraded != (report.Connections > sampleSize*9/10) {
					t.Errorf("%s: %d connections", name, report.Connections)
				}
				took = append(took, report.Took.Seconds())
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		one := median(took)
		next := portbudget.Report{Took: time.Duration(one * float64(time.Second))}.Next()
		share := 100 * one / next.Seconds()
		tab.add(name, number(1000*one), number(next.Seconds()), number(share))
		r.goal("% of a core for sampling, "+name, 0.5, share)
	}
	r.section("a sample of the source ports", tab)
}
