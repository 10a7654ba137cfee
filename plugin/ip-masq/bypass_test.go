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

// directPod is a pod whose interface, of the kind, is a child of the node's card towards the internet.
func directPod(t *testing.T, n *podNode, kind string) *netnstest.Pod {
	t.Helper()
	if kind == "macvlan" {
		return macvlanPod(t, n, "192.0.2.2")
	}
	pod := n.NewPod(t, "direct")
	mode := map[string]string{"ipvlan": "mode l2", "vlan": "id 5"}[kind]
	line := "ip link add eth0 link internet netns " + pod.Name + " type " + kind + " " + mode
	got, err := n.Node.Exec(t.Context(), netnstest.Cmd{Args: []string{"sh", "-c", line}})
	if err == nil && strings.Contains(got.Stderr, "Unknown device type") {
		t.Skipf("this kernel has no %s interfaces", kind)
	}
	if err != nil || got.Code != 0 {
		t.Fatalf("%s: %v, %s", line, err, got.Stderr)
	}
	if kind == "vlan" {
		n.Internet.Run(t, "sh", "-ec", "ip link add card5 link eth0 type vlan id 5; ip link set card5 up; ip route add 192.0.2.50 dev card5")
	}
	pod.Run(t, "sh", "-ec", "ip addr add 192.0.2.50/24 dev eth0; ip link set eth0 up; ip route add default via 192.0.2.2")
	return pod
}

// TestBypassing: packets of a macvlan, ipvlan or VLAN interface never meet the node's rules, as those of a whole card do not. So none is
// written, which is said and recorded; CHECK passes, and nothing is left after DEL.
func TestBypassing(t *testing.T) {
	for _, kind := range []string{"macvlan", "ipvlan", "vlan"} {
		t.Run(kind, func(t *testing.T) {
			eachVariant(t, func(t *testing.T, v variant) {
				n := newNode(t, v, false)
				n.add(t, "usual", "10.244.0.9")
				pod := directPod(t, n, kind)
				r := bypassRequest(n, pod, "192.0.2.2")
				for range 2 { // also when it is repeated
					got := n.must(t, r)
					if !strings.Contains(got.Stderr, kind) || !strings.Contains(got.Stderr, "never meet the node's rules") {
						t.Errorf("it does not say so: %q", got.Stderr)
					}
					wantSeen(t, pod, "udp", n.Internet.IPv4, "192.0.2.50")
					n.wantPods(t, podLine("10.244.0.9", "usual"))
				}
				record, err := os.ReadFile(filepath.Join(n.stateDir, "opted-out", idOf("direct")+".json"))
				if err != nil || !strings.Contains(string(record), `"bypass":"`+kind+`"`) {
					t.Errorf("its record: %s, %v", record, err)
				}
				n.must(t, r.as("CHECK"))
				n.must(t, r.as("DEL"))
				if left, _ := os.ReadDir(filepath.Join(n.stateDir, "opted-out")); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
				n.wantPods(t, podLine("10.244.0.9", "usual"))
			})
		})
	}
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
