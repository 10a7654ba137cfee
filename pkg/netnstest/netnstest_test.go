package netnstest

import (
	"net/netip"
	"os"
	"strings"
	"testing"
)

// seen fails the test when there is no answer.
func seen(t *testing.T, from *Space, network string, to netip.Addr) netip.Addr {
	t.Helper()
	a, err := from.Seen(network, to)
	if err != nil {
		t.Fatalf("%s %s to %s: %v", from.Name, network, to, err)
	}
	return a.Addr()
}

func TestWithoutNATTheHostSeesThePod(t *testing.T) {
	Require(t)
	node := NewNode(t)
	pod := node.AddPod(t, "a")
	for _, host := range []*Host{node.Internet, node.Corp} {
		for _, network := range []string{"udp", "tcp"} {
			if got := seen(t, pod.Space, network, host.IPv4); got != pod.Addrs[0] {
				t.Errorf("%s: %s saw %s, want %s", network, host.IPv4, got, pod.Addrs[0])
			}
			if got := seen(t, pod.Space, network, host.IPv6); got != pod.Addrs[1] {
				t.Errorf("%s: %s saw %s, want %s", network, host.IPv6, got, pod.Addrs[1])
			}
		}
	}
}

func TestMasqueradeShowsTheNode(t *testing.T) {
	Require(t, "iptables-nft", "iptables-legacy")
	for _, variant := range Variants() {
		t.Run(variant, func(t *testing.T) {
			node := NewNode(t)
			node.SetPATH(IPTables(t, variant))
			pod := node.AddPod(t, "a", "10.244.0.9", "fd00:244::9")
			node.Run(t, "iptables", "-t", "nat", "-A", "POSTROUTING", "-s", "10.244.0.9", "-j", "MASQUERADE")
			node.Run(t, "ip6tables", "-t", "nat", "-A", "POSTROUTING", "-s", "fd00:244::9", "-j", "MASQUERADE")
			for to, want := range map[netip.Addr]string{
				node.Internet.IPv4: "192.0.2.1", node.Corp.IPv4: "10.99.0.1",
				node.Internet.IPv6: "2001:db8::1", node.Corp.IPv6: "fd00:99::1",
			} {
				if got := seen(t, pod.Space, "udp", to); got.String() != want {
					t.Errorf("udp: %s saw %s, want %s", to, got, want)
				}
				if got := seen(t, pod.Space, "tcp", to); got.String() != want {
					t.Errorf("tcp: %s saw %s, want %s", to, got, want)
				}
			}
		})
	}
}

func TestAddedAddressAnswers(t *testing.T) {
	Require(t)
	node := NewNode(t)
	pod := node.AddPod(t, "a")
	for i, addr := range []string{"172.16.5.5", "169.254.20.20", "fd00:cafe::1"} {
		want := pod.Addrs[i/2]
		if got := seen(t, pod.Space, "udp", node.Corp.AddAddr(t, addr)); got != want {
			t.Errorf("%s saw %s, want %s", addr, got, want)
		}
	}
}

func TestNoAnswerIsAnError(t *testing.T) {
	Require(t)
	node := NewNode(t)
	pod := node.AddPod(t, "a")
	if a, err := pod.Seen("udp", netip.MustParseAddr("192.0.2.77")); err == nil {
		t.Errorf("nobody is there, but saw %s", a)
	}
}

func TestNamespacesGo(t *testing.T) {
	Require(t)
	var names []string
	t.Run("inner", func(t *testing.T) {
		node := NewNode(t)
		pod := node.AddPod(t, "a")
		names = []string{node.Name, node.Internet.Name, node.Corp.Name, pod.Name}
		pod.Remove()
		if _, err := os.Stat(pod.Path); !os.IsNotExist(err) {
			t.Errorf("removed pod: %v", err)
		}
	})
	for _, name := range names {
		if _, err := os.Stat(runDir + "/" + name); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", name, err)
		}
	}
}

func TestOwnerOf(t *testing.T) {
	for name, want := range map[string]int{
		prefix + "12-3-node": 12,
		prefix + "x-3-node":  0,
		"other-12-3":         0,
		prefix:               0,
	} {
		if got := ownerOf(name); got != want {
			t.Errorf("ownerOf(%q) = %d, want %d", name, got, want)
		}
	}
	if !strings.HasPrefix(prefix, "ipmasq") {
		t.Error("users look for ipmasq in `ip netns`")
	}
}
