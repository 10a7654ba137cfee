package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// macvlanPod is a pod whose interface is a child of the node's card towards the internet.
func macvlanPod(t *testing.T, n *podNode, gateway string) *netnstest.Pod {
	t.Helper()
	pod := n.NewPod(t, "direct")
	n.Node.Run(t, "ip", "link", "add", "eth0", "link", "internet", "netns", pod.Name, "type", "macvlan", "mode", "bridge")
	pod.Run(t, "sh", "-ec", "ip addr add 192.0.2.50/24 dev eth0; ip link set eth0 up; ip route add default via "+gateway)
	return pod
}

// bypassRequest is an ADD for it.
func bypassRequest(n *podNode, pod *netnstest.Pod, gateway string) *request {
	r := n.request("ADD", "direct", "192.0.2.50").setenv("CNI_NETNS", pod.Path)
	result := r.conf["prevResult"].(map[string]any)
	result["interfaces"] = []any{map[string]any{"name": ifName, "sandbox": pod.Path}}
	result["ips"].([]any)[0].(map[string]any)["gateway"] = gateway
	return r
}

// TestBypassing: packets of a macvlan interface never meet the node's rules. So none is written, which is said and recorded; CHECK
// passes, and nothing is left after DEL.
func TestBypassing(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant) {
		n := newNode(t, v, false)
		n.add(t, "usual", "10.244.0.9")
		pod := macvlanPod(t, n, "192.0.2.2")
		r := bypassRequest(n, pod, "192.0.2.2")
		for range 2 { // also when it is repeated
			got := n.must(t, r)
			if !strings.Contains(got.Stderr, "macvlan") || !strings.Contains(got.Stderr, "never meet the node's rules") {
				t.Errorf("it does not say so: %q", got.Stderr)
			}
			wantSeen(t, pod, "udp", n.Internet.IPv4, "192.0.2.50")
			n.wantPods(t, podLine("10.244.0.9", "usual"))
		}
		record, err := os.ReadFile(filepath.Join(n.stateDir, "opted-out", idOf("direct")+".json"))
		if err != nil || !strings.Contains(string(record), `"bypass":"macvlan"`) {
			t.Errorf("its record: %s, %v", record, err)
		}
		n.must(t, r.as("CHECK"))
		n.must(t, r.as("DEL"))
		if left, _ := os.ReadDir(filepath.Join(n.stateDir, "opted-out")); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		n.wantPods(t, podLine("10.244.0.9", "usual"))
	})
}

// TestBypassingThroughTheNode: the pod's gateway is an address of the node, which has a child of the same card. So the node forwards
// its packets, and masquerades them.
func TestBypassingThroughTheNode(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant) {
		n := newNode(t, v, false)
		n.Node.Run(t, "sh", "-ec", `ip link add shim link internet type macvlan mode bridge; ip link set shim up; ip addr add 198.51.100.1/24 dev shim`)
		pod := macvlanPod(t, n, "192.0.2.2")
		pod.Run(t, "sh", "-ec", "ip addr flush dev eth0; ip addr add 198.51.100.50/24 dev eth0; ip route replace default via 198.51.100.1")
		r := bypassRequest(n, pod, "198.51.100.1")
		r.conf["prevResult"].(map[string]any)["ips"].([]any)[0].(map[string]any)["address"] = "198.51.100.50/24"
		n.must(t, r)
		n.wantPods(t, podLine("198.51.100.50", "direct"))
		wantSeen(t, pod, "udp", n.Internet.IPv4, "192.0.2.1")
		n.must(t, r.as("CHECK"))
		n.must(t, r.as("DEL"))
		n.wantPods(t)
	})
}
