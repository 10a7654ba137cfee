package netnstest_test

import (
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// TestSeenIsAnew: no two datagrams have the source port of one connection, which the kernel may track still.
func TestSeenIsAnew(t *testing.T) {
	n := netnstest.NewNode(t)
	pod := n.AddPod(t, "pod")
	ports := map[uint16]bool{}
	for range 300 {
		seen, err := pod.Seen("udp", n.Corp.IPv4)
		if err != nil {
			t.Fatal(err)
		}
		if ports[seen.Port()] {
			t.Fatalf("port %d twice", seen.Port())
		}
		ports[seen.Port()] = true
	}
}
