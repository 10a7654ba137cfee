package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// podNode is a machine with pods and two hosts outside, and the plugin in the conflist that conf/ ships.
type podNode struct {
	*netnstest.Node
	host
	network string
}

func newNode(t *testing.T, v variant, ipv6 bool) *podNode {
	t.Helper()
	netnstest.Require(t, "cnitool", "bridge", "host-local")
	n := &podNode{Node: netnstest.NewNode(t)}
	n.host = host{Space: n.Node.Space, variant: v, stateDir: n.StateDir, dataDir: n.DataDir, pod: netnstest.NewSpace(t, "pod")}
	extra := map[string]any{}
	if v.IsIPTables() {
		n.Node.SetPATH(netnstest.IPTables(t, v.Name))
	}
	if !v.IsIPTables() {
		extra["backend"] = v.Choice
	}
	list := readFile(t, "../../conf/10-bridge-ip-masq.conflist")
	if ipv6 {
		extra["enableIPv6"] = true
		list = withIPv6(t, list)
	}
	n.network = n.Conflist(t, list, extra)
	return n
}

// withIPv6 gives the bridge a second range.
func withIPv6(t *testing.T, list []byte) []byte {
	t.Helper()
	var conf struct {
		CNIVersion string           `json:"cniVersion"`
		Name       string           `json:"name"`
		Plugins    []map[string]any `json:"plugins"`
	}
	unmarshal(t, string(list), &conf)
	conf.Plugins[0]["ipam"] = rawJSON(`{"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}], [{"subnet": "fd00:244::/64"}]],
		"routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}`)
	data, err := json.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// cni runs cnitool with the plugin that this test built.
func (n *podNode) cni(t *testing.T, verb string, pod *netnstest.Pod, env ...string) {
	t.Helper()
	root, err := netnstest.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	env = append(env, "CNI_PATH="+testkit.Built()+":"+filepath.Join(root, "bin", "tools"))
	if r := n.CNI(t, verb, n.network, pod.Path, env...); r.Code != 0 {
		t.Fatalf("%s: exit %d\n%s%s", verb, r.Code, r.Stdout, r.Stderr)
	}
}

// wantSeen asks a host outside which address it sees.
func wantSeen(t *testing.T, pod *netnstest.Pod, network string, host netip.Addr, want string) {
	t.Helper()
	got, err := pod.Seen(network, host)
	if err != nil || got.Addr().String() != want {
		t.Errorf("%s to %s: seen as %v (%v), want %s", network, host, got, err, want)
	}
}

// TestFirstPackets: the very first packets of a pod show the node's address outside and the pod's own inside the cluster's
// ranges, and what is detached is gone.
func TestFirstPackets(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant) {
		n := newNode(t, v, false)
		pods := []*netnstest.Pod{n.NewPod(t, "a"), n.NewPod(t, "b")}
		for i, pod := range pods {
			n.cni(t, "add", pod)
			own := fmt.Sprintf("10.244.0.%d", i+2)
			wantSeen(t, pod, "udp", n.Internet.IPv4, "192.0.2.1")
			wantSeen(t, pod, "tcp", n.Internet.IPv4, "192.0.2.1")
			wantSeen(t, pod, "udp", n.Corp.IPv4, own)
			wantSeen(t, pod, "tcp", n.Corp.IPv4, own)
			n.cni(t, "check", pod)
		}
		for _, pod := range pods {
			n.cni(t, "del", pod)
		}
		n.wantPods(t)
		if out := n.Node.Run(t, "cat", "/proc/net/ip6_tables_names") + n.Node.Run(t, "nft", "list", "tables", "ip6"); out != "" {
			t.Errorf("IPv6 is off and has %s", out)
		}
	})
}

func TestFirstPacketsDualStack(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant) {
		n := newNode(t, v, true)
		pod := n.NewPod(t, "a")
		n.cni(t, "add", pod)
		wantSeen(t, pod, "udp", n.Internet.IPv6, "2001:db8::1")
		wantSeen(t, pod, "tcp", n.Internet.IPv6, "2001:db8::1")
		wantSeen(t, pod, "tcp", n.Corp.IPv6, "fd00:244::2")
		wantSeen(t, pod, "udp", n.Internet.IPv4, "192.0.2.1")
		wantSeen(t, pod, "udp", n.Corp.IPv4, "10.244.0.2")
		n.cni(t, "check", pod)
		n.cni(t, "del", pod)
		n.wantTable(t, policy.IPv6, n.defaultTable(policy.IPv6))
	})
}

// TestOptedOutPackets: a pod that says so keeps its address, beside one that does not.
func TestOptedOutPackets(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant) {
		n := newNode(t, v, false)
		out, usual := n.NewPod(t, "out"), n.NewPod(t, "usual")
		n.cni(t, "add", out, `CAP_ARGS={"io.kubernetes.cri.pod-annotations": {"ip-masq-agent/masquerade": "false"}}`)
		n.cni(t, "add", usual)
		wantSeen(t, out, "udp", n.Internet.IPv4, "10.244.0.2")
		wantSeen(t, usual, "udp", n.Internet.IPv4, "192.0.2.1")
	})
}

// TestMulticastKeepsItsSource: who sends to a group is part of the message (mDNS). The node itself sends from a pod's address,
// because forwarding multicast takes a routing daemon; the way through POSTROUTING is the same.
func TestMulticastKeepsItsSource(t *testing.T) {
	tests := []struct{ family, source, prefix, outside, group string }{
		{"udp4", "10.1.0.5", "/32", "192.0.2.2", "239.1.1.1"},
		{"udp6", "fd00:1::5", "/128", "2001:db8::2", "ff05::77"},
	}
	eachVariant(t, func(t *testing.T, v variant) {
		n := newNode(t, v, true)
		for _, tt := range tests {
			n.must(t, n.request("ADD", "pod", tt.source).set("enableIPv6", true))
			// The kernel sends to a group by the interface that has the source.
			n.Node.Run(t, "ip", "addr", "add", tt.source+tt.prefix, "dev", "internet", "nodad")
			group := joinGroup(t, n.Internet, tt.family, tt.group)
			n.send(t, tt.family, tt.source, tt.group, messagePort)
			if from := receive(t, group); from != tt.source {
				t.Errorf("%s: seen as %s, want the pod's %s", tt.group, from, tt.source)
			}
			direct := listen(t, n.Internet, tt.family, tt.outside)
			n.send(t, tt.family, tt.source, tt.outside, messagePort+1)
			if from := receive(t, direct); from == tt.source {
				t.Errorf("%s: not masqueraded, so the group proves nothing", tt.outside)
			}
		}
	})
}

// messagePort is for groups; a socket for a group keeps its port on all addresses, so the other has the next.
const messagePort = 5353

func joinGroup(t *testing.T, h *netnstest.Host, family, group string) *net.UDPConn {
	t.Helper()
	return socket(t, h, func() (*net.UDPConn, error) {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return nil, err
		}
		return net.ListenMulticastUDP(family, eth0, &net.UDPAddr{IP: net.ParseIP(group), Port: messagePort})
	})
}

func listen(t *testing.T, h *netnstest.Host, family, address string) *net.UDPConn {
	t.Helper()
	return socket(t, h, func() (*net.UDPConn, error) {
		return net.ListenUDP(family, &net.UDPAddr{IP: net.ParseIP(address), Port: messagePort + 1})
	})
}

func socket(t *testing.T, h *netnstest.Host, open func() (*net.UDPConn, error)) (conn *net.UDPConn) {
	t.Helper()
	err := h.Do(func() (err error) {
		conn, err = open()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// send sends one datagram from an address of the node.
func (n *podNode) send(t *testing.T, family, source, to string, port int) {
	t.Helper()
	err := n.Node.Do(func() error {
		target := &net.UDPAddr{IP: net.ParseIP(to), Port: port}
		if strings.HasPrefix(to, "ff") {
			target.Zone = "internet"
		}
		conn, err := net.DialUDP(family, &net.UDPAddr{IP: net.ParseIP(source)}, target)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		_, err = conn.Write([]byte("hello"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// receive returns the address that a datagram came from, or why none came.
func receive(t *testing.T, conn *net.UDPConn) string {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
	_, from, err := conn.ReadFromUDPAddrPort(make([]byte, 64))
	if err != nil {
		return err.Error()
	}
	return from.Addr().Unmap().WithZone("").String()
}

// TestConflistIsTheShippedOne keeps this file honest: it must test what users copy.
func TestConflistIsTheShippedOne(t *testing.T) {
	matches, _ := filepath.Glob("../../conf/*.conflist")
	for _, file := range matches {
		data, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(data), `"ip-masq"`) {
			t.Errorf("%s: %v, or not the shipped one", file, err)
		}
	}
	if len(matches) == 0 {
		t.Error("conf/ has no conflist")
	}
}
