package agent_test

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// jump is the comment of the Kubernetes agent's root rule. Releases up to v2.10, and Azure's agent, write it with literal
// quotes around it.
const jump = "ip-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom %s chain"

// rootAll is the whole rule as `iptables -S` prints it.
const rootAll = `-A POSTROUTING -m comment --comment "ip-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic ` +
	`to our custom IP-MASQ-AGENT chain" -m addrtype ! --dst-type LOCAL -j IP-MASQ-AGENT` + "\n"

// roots are the rules of POSTROUTING.
func (r *rig) roots(t *testing.T) string {
	t.Helper()
	_, rules, _ := strings.Cut(r.nat(t, "-S", "POSTROUTING"), "\n")
	return rules
}

// olderAgent does what an older agent does at its start, with the comment as it writes it.
func (r *rig) olderAgent(t *testing.T, chain, comment string, copies int) {
	t.Helper()
	r.nat(t, "-N", chain)
	for _, cidr := range []string{"169.254.0.0/16", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"} {
		r.nat(t, "-A", chain, "-m", "comment", "--comment", "ip-masq-agent: local traffic is not subject to MASQUERADE", "-d", cidr, "-j", "RETURN")
	}
	r.nat(t, "-A", chain, "-m", "comment", "--comment", "ip-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)", "-j", "MASQUERADE")
	for range copies {
		r.nat(t, "-A", "POSTROUTING", "-m", "comment", "--comment", comment, "-m", "addrtype", "!", "--dst-type", "LOCAL", "-j", chain)
	}
}

func TestSourcesAll(t *testing.T) {
	eachIPTables(t, func(t *testing.T, r *rig) {
		pod := r.AddPod(t, "a", "10.244.0.2") // on no record
		record(t, r.StateDir)
		r.Sync(t, "--sources=all")
		if got := r.roots(t); got != rootAll {
			t.Errorf("root rules\n%s", got)
		}
		if got := r.nat(t, "-L", "IP-MASQ-AGENT", "-n"); !strings.HasPrefix(got, "Chain IP-MASQ-AGENT (1 references)\n") {
			t.Errorf("listing\n%s", got)
		}
		if got := r.nat(t, "-S"); strings.Contains(got, "IP-MASQ-AGENT-PODS") {
			t.Errorf("rules for single pods:\n%s", got)
		}
		for host, want := range map[netip.Addr]string{r.Internet.IPv4: "192.0.2.1", r.Corp.IPv4: "10.244.0.2"} {
			if seen, err := pod.Seen("tcp", host); err != nil || seen.Addr().String() != want {
				t.Errorf("%s saw %v (%v), want %s", host, seen, err, want)
			}
		}
	})
}

// TestSourcesSwitch goes from pods to all and back under a running agent's eyes, each time with a restart.
func TestSourcesSwitch(t *testing.T) {
	eachIPTables(t, func(t *testing.T, r *rig) {
		record(t, r.StateDir)
		for i, sources := range []string{"pods", "all", "pods"} {
			agent := r.startReady(t, "--sources="+sources)
			got, references := r.roots(t), map[string]int{"pods": 3, "all": 1}[sources]
			if (sources == "all") != (got == rootAll) || strings.Count(got, "\n") != 1 {
				t.Errorf("step %d, --sources=%s: root rules\n%s", i, sources, got)
			}
			if got := r.nat(t, "-L", "IP-MASQ-AGENT", "-n"); !strings.HasPrefix(got, fmt.Sprintf("Chain IP-MASQ-AGENT (%d references)\n", references)) {
				t.Errorf("step %d, --sources=%s: listing\n%s", i, sources, got)
			}
			agent.Stop(syscall.SIGTERM, patience)
		}
	})
}

// takeOvers are what an older agent may have left.
var takeOvers = []struct {
	name, comment, chain string
	copies               int
}{
	{"v2.12", jump, "IP-MASQ-AGENT", 1},
	{"v2.12, thrice", jump, "IP-MASQ-AGENT", 3},
	{"v2.10 and Azure's", `"` + jump + `"`, "IP-MASQ-AGENT", 1},
	{"v2.10 and Azure's, twice", `"` + jump + `"`, "IP-MASQ-AGENT", 2},
	{"a chain of another name", jump, "IP-MASQ", 2},
}

// TestTakeOver starts where an older agent's rules stand and a pod sends all the time: no packet is seen with the pod's address,
// and one root rule is left.
func TestTakeOver(t *testing.T) {
	for _, c := range takeOvers {
		for _, sources := range []string{"all", "pods"} {
			t.Run(c.name+" to "+sources, func(t *testing.T) {
				eachIPTables(t, func(t *testing.T, r *rig) {
					pod := r.AddPod(t, "a", attached[1].Addresses[0].String())
					record(t, r.StateDir)
					comment := strings.ReplaceAll(c.comment, "%s", c.chain)
					r.olderAgent(t, c.chain, comment, c.copies)
					if c.copies > 1 { // as one started after the other leaves it
						other := map[bool]string{true: strings.Trim(comment, `"`), false: `"` + comment + `"`}[strings.HasPrefix(comment, `"`)]
						r.nat(t, "-A", "POSTROUTING", "-m", "comment", "--comment", other, "-m", "addrtype", "!", "--dst-type", "LOCAL", "-j", c.chain)
					}
					stream := startStream(t, r, pod)
					r.startReady(t, "--sources="+sources, "--masq-chain="+c.chain)
					stream.check(t)
					if got := r.roots(t); strings.Count(got, "\n") != 1 || (sources == "all") != strings.Contains(got, "-j "+c.chain+"\n") {
						t.Errorf("root rules\n%s", got)
					}
				})
			})
		}
	}
}

// TestFormerChain renames the chain: the persisted policy names the former one, which goes, and nobody else's does.
func TestFormerChain(t *testing.T) {
	eachIPTables(t, func(t *testing.T, r *rig) {
		pod := r.AddPod(t, "a", attached[1].Addresses[0].String())
		record(t, r.StateDir)
		r.nat(t, "-N", "IP-MASQ-OTHERS")
		r.Sync(t, "--masq-chain=IP-MASQ", "--enable-ipv6")
		stream := startStream(t, r, pod)
		r.Sync(t, "--masq-chain=NODE-MASQ", "--enable-ipv6=false")
		stream.check(t)
		want := "IP-MASQ-OTHERS NODE-MASQ NODE-MASQ-PODS"
		if got := chainNames(r.nat(t, "-S")); got != want {
			t.Errorf("chains %s, want %s", got, want)
		}
		if got := chainNames(r.Run(t, "ip6tables", "-w", "-t", "nat", "-S")); got != "" || strings.Count(r.roots(t), "\n") != 1 {
			t.Errorf("IPv6 chains %q after it was switched off; root rules\n%s", got, r.roots(t))
		}
		if got := read(t, filepath.Join(r.DataDir, "policy.json")); !strings.Contains(got, `"chain":"NODE-MASQ"`) {
			t.Errorf("persisted: %s", got)
		}
	})
}

func chainNames(rules string) string {
	var names []string
	for line := range strings.Lines(rules) {
		if name, ok := strings.CutPrefix(line, "-N "); ok {
			names = append(names, strings.TrimSpace(name))
		}
	}
	return strings.Join(names, " ")
}

// stream is a pod that talks to an outside host all the time, every packet a new connection.
type stream struct {
	pod, node, others atomic.Int64 // packets that the host saw from each
	stop              chan struct{}
	done              sync.WaitGroup
}

const streamPort = 7778

func startStream(t *testing.T, r *rig, pod *netnstest.Pod) *stream {
	t.Helper()
	s := &stream{stop: make(chan struct{})}
	var host *net.UDPConn
	err := r.Internet.Do(func() (err error) {
		host, err = net.ListenUDP("udp4", &net.UDPAddr{IP: r.Internet.IPv4.AsSlice(), Port: streamPort})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	netnstest.OnExit(t, func() { _ = host.Close() })
	go s.receive(host, pod.Addrs[0])
	target := netip.AddrPortFrom(r.Internet.IPv4, streamPort)
	s.done.Go(func() { _ = pod.Do(func() error { return s.send(target) }) })
	netnstest.Eventually(t, patience, "the first packets", func() bool { return s.node.Load() > 50 })
	return s
}

func (s *stream) receive(host *net.UDPConn, pod netip.Addr) {
	packet := make([]byte, 16)
	for {
		_, from, err := host.ReadFromUDPAddrPort(packet)
		switch {
		case err != nil:
			return
		case from.Addr().Unmap() == pod:
			s.pod.Add(1)
		case from.Addr().Unmap().String() == "192.0.2.1":
			s.node.Add(1)
		default:
			s.others.Add(1)
		}
	}
}

// send opens a socket for each packet, so that no packet belongs to a connection that the kernel has translated before.
func (s *stream) send(target netip.AddrPort) error {
	for range 60_000 {
		select {
		case <-s.stop:
			return nil
		case <-time.After(time.Millisecond):
		}
		conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(target))
		if err != nil {
			return err
		}
		_, _ = conn.Write([]byte("x"))
		_ = conn.Close()
	}
	return nil
}

// check ends the stream when a hundred more packets arrived, and looks at what the host saw.
func (s *stream) check(t *testing.T) {
	t.Helper()
	arrived := func() int64 { return s.pod.Load() + s.node.Load() + s.others.Load() }
	enough := arrived() + 100
	netnstest.Eventually(t, patience, "a hundred more packets", func() bool { return arrived() >= enough })
	close(s.stop)
	s.done.Wait()
	if s.pod.Load() != 0 || s.others.Load() != 0 {
		t.Errorf("of %d packets, %d had the pod's address, %d neither its nor the node's", arrived(), s.pod.Load(), s.others.Load())
	}
}
