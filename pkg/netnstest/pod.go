package netnstest

import (
	"fmt"
	"net/netip"
)

// Pod is a network namespace behind a node.
type Pod struct {
	*Space
	Addrs []netip.Addr
}

// NewPod makes a pod without a network, for cnitool or a CNI plugin to fill.
func (n *Node) NewPod(t TB, name string) *Pod {
	t.Helper()
	return &Pod{Space: NewSpace(t, name)}
}

// AddPod makes a pod with a link to the node and the addresses, without any CNI
// plugin. Without addresses it has one per family: 10.244.0.N and fd00:244::N.
// The node is 10.244.0.1 and fd00:244::1 on every such link.
func (n *Node) AddPod(t TB, name string, addrs ...string) *Pod {
	t.Helper()
	p := n.NewPod(t, name)
	n.pods++
	link := fmt.Sprintf("pod%d", n.pods)
	if len(addrs) == 0 {
		addrs = []string{fmt.Sprintf("10.244.0.%d", n.pods+1), fmt.Sprintf("fd00:244::%x", n.pods+1)}
	}
	n.ip(t, n.veth(link, p.Space), "link set "+link+" up")
	p.ip(t, "link set eth0 up")
	for _, gateway := range []string{"10.244.0.1/32", "fd00:244::1/128"} {
		n.ip(t, "addr add "+gateway+" dev "+link+" nodad")
	}
	for _, addr := range addrs {
		n.connect(t, p, link, netip.MustParseAddr(addr))
	}
	return p
}

// connect gives the pod an address with host routes on both ends, so that pods
// need no common subnet and two links may carry the same gateway.
func (n *Node) connect(t TB, p *Pod, link string, a netip.Addr) {
	t.Helper()
	gateway, bits := "10.244.0.1", "/32"
	if a.Is6() {
		gateway, bits = "fd00:244::1", "/128"
	}
	p.ip(t,
		"addr add "+a.String()+bits+" dev eth0 nodad",
		"route add "+gateway+" dev eth0",
		"route add default via "+gateway+" dev eth0")
	n.ip(t, "route replace "+a.String()+bits+" dev "+link)
	p.Addrs = append(p.Addrs, a)
}
