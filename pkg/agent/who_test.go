package agent_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// record is what the plugin leaves of a pod's ADD.
func (r *rig) record(t *testing.T, name string, addrs ...netip.Addr) attachment.Attachment {
	t.Helper()
	a := attachment.Attachment{
		Owner: attachment.Owner{Network: "net", ContainerID: "c-" + name, IfName: "eth0"}, Addresses: addrs,
		Pod: attachment.Pod{Namespace: "shop", Name: name},
	}
	if err := (attachment.Store{Dir: filepath.Join(r.StateDir, "attachments")}).Put(a); err != nil {
		t.Fatal(err)
	}
	return a
}

// answers runs who, and returns the exit status and what matters of the document.
func (r *rig) answers(t *testing.T, args ...string) (code int, found string) {
	t.Helper()
	got := r.Agent(t, "who", append([]string{"--output", "json"}, args...)...)
	var d struct {
		APIVersion    string
		Found         bool
		Reason        *string
		Pod           *attachment.Pod
		ContainerID   *string
		Proto         *string
		Dst           *netip.Addr
		DstPort       *uint16
		TranslatedSrc netip.Addr
		Start, End    *time.Time
		From          *string
	}
	if err := json.Unmarshal([]byte(got.Stdout), &d); err != nil {
		t.Fatalf("who %v: %v: %s%s", args, err, got.Stdout, got.Stderr)
	}
	if d.APIVersion != "ip-masq/v1" || (got.Code == 0) != d.Found {
		t.Errorf("who %v: exit %d\n%s", args, got.Code, got.Stdout)
	}
	if !d.Found {
		return got.Code, "none: " + *d.Reason
	}
	who := "unknown"
	if d.Pod != nil {
		who = d.Pod.String() + " " + *d.ContainerID
	}
	over := "open"
	if d.End != nil {
		over = "over"
	}
	return got.Code, fmt.Sprintf("%s %s %s %s from %s", who, *d.Proto, netip.AddrPortFrom(*d.Dst, *d.DstPort), over, *d.From)
}

func (r *rig) wantAnswer(t *testing.T, when, want string, args ...string) {
	t.Helper()
	code, got := "", ""
	ok := func() bool {
		var exit int
		exit, got = r.answers(t, args...)
		code = fmt.Sprint(exit)
		return strings.HasPrefix(got, want)
	}
	for end := time.Now().Add(netnstest.Limit(5 * time.Second)); !ok(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: who %v: exit %s, %s, want %s", when, args, code, got, want)
		}
	}
}

// TestWho asks about open connections, with and without a daemon, and about those that are over, when another pod has the address.
func TestWho(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		netnstest.Require(t, "conntrack")
		pod := r.AddPod(t, "pod", "10.244.0.5")
		first := r.record(t, "first", pod.Addrs...)
		r.Sync(t)
		seen := func(network string) string {
			t.Helper()
			as, err := pod.Seen(network, r.Internet.IPv4)
			if err != nil || as.Addr() == pod.Addrs[0] {
				t.Fatalf("%v, %v", as, err)
			}
			return as.String()
		}
		to := netip.AddrPortFrom(r.Internet.IPv4, netnstest.Port).String()
		before := seen("udp")
		r.wantAnswer(t, "no daemon", "shop/first c-first udp "+to+" open from conntrack", before)
		log := filepath.Join(t.TempDir(), "translations")
		daemon := r.Start(t, netnstest.Cmd{Args: r.Command("run", "--metrics-bind-address", "", "--translation-log", log)})
		netnstest.Eventually(t, 10*time.Second, "the daemon listens", func() bool {
			_, err := os.Stat(filepath.Join(r.StateDir, "agent.sock"))
			return err == nil
		})
		r.wantAnswer(t, "beside a daemon", "shop/first c-first udp "+to+" open from conntrack", before, "--dst", to, "--proto", "udp")
		during := seen("tcp")
		r.wantAnswer(t, "beside a daemon", "shop/first c-first tcp "+to+" open from conntrack", during)
		asked := time.Now().UTC().Format(time.RFC3339Nano)
		time.Sleep(10 * time.Millisecond)
		r.Run(t, "conntrack", "-F")
		if err := (attachment.Store{Dir: filepath.Join(r.StateDir, "attachments")}).Delete(first.ID()); err != nil {
			t.Fatal(err)
		}
		r.record(t, "second", pod.Addrs...)
		over := "shop/first c-first tcp " + to + " over from log"
		r.wantAnswer(t, "another pod has the address", over, during)
		r.wantAnswer(t, "another pod has the address", over, "--at", asked, during)
		r.wantAnswer(t, "before the log", "none: the log begins at ", during, "--at", "2001-01-01T00:00:00Z")
		r.wantAnswer(t, "other destination", "none: neither an open connection nor a line of the log", during, "--dst", "198.51.100.1")
		r.wantAnswer(t, "other node", "none: neither an open connection nor a line of the log, which goes from ", "203.0.113.9:40000")
		if text := r.Agent(t, "who", during); text.Code != 0 || !strings.HasPrefix(text.Stdout, during+": shop/first\n") {
			t.Errorf("exit %d: %s%s", text.Code, text.Stdout, text.Stderr)
		}
		if info, err := os.Stat(log); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
		daemon.Stop(15, netnstest.Limit(5*time.Second))
		r.wantAnswer(t, "the daemon ended, no log", "none: no open connection has this source, and there is no log", during)
		r.wantAnswer(t, "the daemon ended", over, during, "--translation-log", log)
		for _, args := range [][]string{{"192.0.2.1"}, {"192.0.2.1:0"}, {during, "--dst", "here"}, {during, "--at", "noon"}, {during, "--translation-log-max-files", "0"}} {
			if got := r.Agent(t, "who", args...); got.Code != 2 || strings.Count(got.Stderr, "\n") != 1 {
				t.Errorf("who %v: exit %d: %s", args, got.Code, got.Stderr)
			}
		}
	})
}

// portsOf is the part of status that is about source ports.
type portsOf struct {
	Ports *struct {
		Highest      float64
		Destinations []struct {
			Proto         string
			TranslatedSrc netip.Addr
			Dst           netip.Addr
			DstPort       uint16
			Taken, Usable int
			Share         float64
			Pods          []struct {
				Namespace, Name string
				Taken           int
			}
		}
	}
}

// TestPortsUsedUp exhausts a range of source ports with connections that are open: status names destination and pod, and check
// says what to do.
func TestPortsUsedUp(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Variants(), func(t *testing.T, v testkit.Variant) {
		t.Parallel()
		r := newRig(t, v)
		pod := r.AddPod(t, "pod", "10.244.0.5")
		r.record(t, "greedy", pod.Addrs...)
		const usable = 20
		const metrics = "127.0.0.1:10279"
		r.Start(t, netnstest.Cmd{Args: r.Command("run", "--to-ports", "40000-40019", "--random-fully=false", "--metrics-bind-address", metrics)})
		netnstest.Eventually(t, 10*time.Second, "the agent is ready", func() bool { return strings.Contains(r.page(metrics), "ip_masq_agent_ready 1\n") })
		listener := r.server(t)
		failed := 0
		for range usable + 2 {
			ctx, cancel := context.WithTimeout(t.Context(), netnstest.Limit(2*time.Second))
			conn, err := pod.DialContext(ctx, "tcp", listener)
			cancel()
			if err != nil {
				failed++
				continue
			}
			t.Cleanup(func() { _ = conn.Close() })
		}
		if failed != 2 {
			t.Fatalf("%d of %d connections failed, want 2", failed, usable+2)
		}
		var got portsOf
		if err := json.Unmarshal([]byte(r.Agent(t, "status", "--output", "json").Stdout), &got); err != nil || got.Ports == nil || len(got.Ports.Destinations) != 1 {
			t.Fatalf("%+v, %v", got.Ports, err)
		}
		d := got.Ports.Destinations[0]
		if got.Ports.Highest != 1 || d.Proto != "tcp" || d.Dst != r.Internet.IPv4 || d.Taken != usable || d.Usable != usable || d.Share != 1 ||
			len(d.Pods) != 1 || d.Pods[0].Namespace != "shop" || d.Pods[0].Name != "greedy" || d.Pods[0].Taken != usable {
			t.Errorf("%+v", got.Ports)
		}
		wantSeries := func(series string) {
			t.Helper()
			netnstest.Eventually(t, 20*time.Second, series, func() bool { return strings.Contains(r.page(metrics), "\n"+series+"\n") })
		}
		wantSeries("ip_masq_agent_source_port_usage_ratio 1")
		wantSeries(`ip_masq_agent_source_port_busy_destinations{above="0.95"} 1`)
		fires(t, "ip_masq_agent_source_port_usage_ratio", 1)
		if text := r.Agent(t, "status").Stdout; !strings.Contains(text, "100 %  20 of 20  tcp "+listener+" from 192.0.2.1") || !strings.Contains(text, "shop/greedy at 10.244.0.5 (20)") {
			t.Errorf("status:\n%s", text)
		}
		check := r.Agent(t, "check").Stdout
		for _, want := range []string{"ports-room", "20 of 20 source ports", "shop/greedy", "toPorts", "keep-alive"} {
			if !strings.Contains(strings.Join(strings.Fields(check), " "), want) {
				t.Errorf("check does not say %q:\n%s", want, check)
			}
		}
	})
}

// server accepts connections on the Internet's host and keeps them open.
func (r *rig) server(t *testing.T) string {
	t.Helper()
	var listener net.Listener
	err := r.Internet.Do(func() (err error) {
		listener, err = net.Listen("tcp", net.JoinHostPort(r.Internet.IPv4.String(), "8443")) //nolint:noctx // on this thread, in the host's namespace
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
		}
	}()
	return listener.Addr().String()
}

// page is /metrics as a scrape sees it.
func (r *rig) page(address string) string {
	client := http.Client{Transport: &http.Transport{DialContext: r.DialContext, DisableKeepAlives: true}, Timeout: netnstest.Limit(5 * time.Second)}
	response, err := client.Get("http://" + address + "/metrics") //nolint:noctx // bounded by the client
	if err != nil {
		return ""
	}
	defer func() { _ = response.Body.Close() }()
	body, _ := io.ReadAll(response.Body)
	return string(body)
}

// fires holds a value against the expressions of all alerts on that metric.
func fires(t *testing.T, metric string, value float64) {
	t.Helper()
	root, err := netnstest.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	rules, err := os.ReadFile(filepath.Join(root, "conf/monitoring/alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("expr: "+metric+" > ([0-9.]+)\n").FindAllStringSubmatch(string(rules), -1)
	if len(found) == 0 {
		t.Errorf("no alert is on %s", metric)
	}
	for _, match := range found {
		if limit, err := strconv.ParseFloat(match[1], 64); err != nil || value <= limit {
			t.Errorf("%q does not fire at %v", match[0], value)
		}
	}
}
