package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// flow is one socket that a pod keeps using.
type flow struct {
	pod  *netnstest.Pod
	host netip.AddrPort
	conn net.Conn
	net  string
}

// open connects a flow; both ends talk until the test ends.
func open(t *testing.T, p *netnstest.Pod, network string, host netip.AddrPort) *flow {
	t.Helper()
	f := &flow{pod: p, host: host, net: network}
	f.connect(t)
	t.Cleanup(func() { f.conn.Close() })
	return f
}

func (f *flow) connect(t *testing.T) {
	t.Helper()
	conn, err := f.pod.DialContext(context.Background(), f.net, f.host.String())
	if err != nil {
		t.Fatal(err)
	}
	f.conn = conn
}

// seen sends once and returns the address that the server saw. A UDP socket stays the same throughout; a TCP connection may be
// broken by the change, and its user connects again.
func (f *flow) seen(t *testing.T) string {
	t.Helper()
	seen := f.seenPort(t)
	if at, err := netip.ParseAddrPort(seen); err == nil {
		return at.Addr().String()
	}
	return seen
}

// seenPort is seen with the port.
func (f *flow) seenPort(t *testing.T) string {
	t.Helper()
	answer := make([]byte, 100)
	_ = f.conn.SetDeadline(time.Now().Add(time.Second))
	_, err := f.conn.Write([]byte("?\n"))
	var n int
	if err == nil {
		n, err = f.conn.Read(answer)
	}
	if err != nil {
		if f.net == "tcp" {
			f.conn.Close()
			f.connect(t)
		}
		return err.Error()
	}
	return strings.TrimSpace(string(answer[:n]))
}

// answerLines is a TCP server that says to each line from where it came, as long as the client likes.
func answerLines(t *testing.T, h *netnstest.Host, addr netip.Addr) netip.AddrPort {
	t.Helper()
	at := netip.AddrPortFrom(addr, 8888)
	err := h.Do(func() error {
		listener, err := net.Listen("tcp", at.String())
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					for lines := bufio.NewScanner(conn); lines.Scan(); {
						fmt.Fprintln(conn, conn.RemoteAddr())
					}
				}()
			}
		}()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func udpAt(addr netip.Addr) netip.AddrPort { return netip.AddrPortFrom(addr, netnstest.Port) }

// TestLiveFlows changes the policy there and back, for both protocols and families: each live flow gets the right address.
func TestLiveFlows(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		netnstest.Require(t, "conntrack")
		p := r.attached(t, "a")
		r.Write(t, never)
		agent := r.startReady(t, "--enable-ipv6")
		flows := map[string]*flow{
			"UDP":           open(t, p.Pod, "udp", udpAt(r.Internet.IPv4)),
			"TCP":           open(t, p.Pod, "tcp", answerLines(t, r.Internet, r.Internet.IPv4)),
			"UDP over IPv6": open(t, p.Pod, "udp", udpAt(r.Internet.IPv6)),
			"TCP over IPv6": open(t, p.Pod, "tcp", answerLines(t, r.Internet, r.Internet.IPv6)),
		}
		want := func(own bool, what string) string {
			switch v6 := strings.HasSuffix(what, "IPv6"); {
			case own && v6:
				return p.Addrs[1].String()
			case own:
				return p.Addrs[0].String()
			case v6:
				return "2001:db8::1"
			}
			return nodeAddress
		}
		for i, list := range []string{"", "nonMasqueradeCIDRs: [10.0.0.0/8, 192.0.2.0/24, 'fc00::/7', '2001:db8::/32']\n", ""} {
			r.Write(t, never+list)
			for what, f := range flows {
				r.eventually(t, agent, fmt.Sprintf("%s from the right address after change %d", what, i), func() bool {
					return f.seen(t) == want(list != "", what)
				})
			}
		}
	})
}

// TestFlushModes: what may be ended by each mode.
func TestFlushModes(t *testing.T) {
	for mode, ended := range map[string]map[string]bool{
		"changed": {"udp": true, "tcp": true},
		"udp":     {"udp": true},
		"none":    {},
	} {
		t.Run(mode, func(t *testing.T) {
			each(t, func(t *testing.T, r *rig) {
				p := r.attached(t, "a")
				r.Sync(t)
				flows := []*flow{
					open(t, p.Pod, "udp", udpAt(r.Internet.IPv4)),
					open(t, p.Pod, "tcp", answerLines(t, r.Internet, r.Internet.IPv4)),
				}
				for _, f := range flows {
					if got := f.seen(t); got != nodeAddress {
						t.Fatalf("%s: before: %s", f.net, got)
					}
				}
				r.Write(t, internetKept)
				r.Sync(t, "--conntrack-flush", mode)
				for _, f := range flows {
					if got := f.seen(t); (got != nodeAddress) != ended[f.net] {
						t.Errorf("%s: seen as %s afterwards", f.net, got)
					}
				}
				r.wantSeen(t, p, p.Addrs[0].String()) // a new flow, whatever the mode
			})
		})
	}
}

// TestFlowsOfOptedOut: a pod that opted out keeps its address, but where the policy is about all traffic; its live flows follow.
func TestFlowsOfOptedOut(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		netnstest.Require(t, "conntrack")
		p := r.newPod(t, "a")
		if got := r.plugin(t, "ADD", p, `"masquerade": false`); got.Code != 0 {
			t.Fatalf("ADD: %s%s", got.Stdout, got.Stderr)
		}
		r.Write(t, never)
		agent := r.startReady(t)
		flows := []*flow{
			open(t, p.Pod, "udp", udpAt(r.Internet.IPv4)),
			open(t, p.Pod, "tcp", answerLines(t, r.Internet, r.Internet.IPv4)),
		}
		for i, sources := range []string{"pods", "all", "pods"} {
			r.Write(t, never+"sources: "+sources+"\n")
			want := map[string]string{"pods": p.Addrs[0].String(), "all": nodeAddress}[sources]
			for _, f := range flows {
				r.eventually(t, agent, fmt.Sprintf("%s from %s after change %d", f.net, want, i), func() bool { return f.seen(t) == want })
			}
		}
	})
}
