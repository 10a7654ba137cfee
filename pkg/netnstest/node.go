package netnstest

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
)

// cniCache is where libcni keeps results and host-local its leases. cnitool has
// no option for it, so a node has a private directory mounted there.
const cniCache = "/var/lib/cni"

// Node is a machine that forwards: pods on one side, two hosts on the other.
// Commands that run on it see a private /var/lib/cni and a lock file of its own
// for iptables-legacy.
type Node struct {
	*Space

	Internet *Host // 192.0.2.2, 2001:db8::2; the node is .1 and ::1
	Corp     *Host // 10.99.0.2, fd00:99::2

	StateDir string // private stand-in for /run/ip-masq-agent
	DataDir  string // private stand-in for /var/lib/ip-masq-agent
	ConfDir  string // private stand-in for /etc/cni/net.d
	CacheDir string // what the node sees as /var/lib/cni

	links, pods int
}

// Host is a machine outside that tells everybody which address it saw.
type Host struct {
	*Space
	IPv4, IPv6 netip.Addr

	node     *Node
	nodeSide string // the node's interface towards this host
}

// NewNode makes a node with its two hosts. The hosts send everything to the
// node, so that packets that keep a pod's address are answered as well.
func NewNode(t TB) *Node {
	t.Helper()
	n := &Node{Space: NewSpace(t, "node")}
	n.places(t)
	if err := n.Sysctl("net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1"); err != nil {
		t.Fatalf("forwarding: %v", err)
	}
	n.Internet = n.addHost(t, "internet", "192.0.2.", "2001:db8::")
	n.Corp = n.addHost(t, "corp", "10.99.0.", "fd00:99::")
	n.ip(t, "route add default via 192.0.2.2", "route add default via 2001:db8::2")
	return n
}

// places makes the node's private directories.
func (n *Node) places(t TB) {
	t.Helper()
	dir := tempDir(t)
	n.StateDir, n.DataDir = filepath.Join(dir, "state"), filepath.Join(dir, "data")
	n.ConfDir, n.CacheDir = filepath.Join(dir, "net.d"), filepath.Join(dir, "cache")
	// cniCache itself stays behind, empty: removing the mount point would
	// detach the mounts that other test processes have there.
	for _, d := range []string{n.StateDir, n.DataDir, n.ConfDir, n.CacheDir, cniCache} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatalf("%v", err)
		}
	}
	binds := append([]bind{{n.CacheDir, cniCache}}, nameless(t, dir)...)
	var err error
	if n.mounts, err = privateMounts(binds...); err != nil {
		t.Fatalf("private mounts: %v", err)
	}
	n.Env = append(n.Env, "XTABLES_LOCKFILE="+filepath.Join(dir, "xtables.lock"))
}

// nameless hides the machine's name service from the node. `iptables -L` would
// wait for the name of every address, since the node reaches no name server, and
// show names instead of addresses ("link-local/16" on Debian).
func nameless(t TB, dir string) (binds []bind) {
	t.Helper()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o644); err != nil {
		t.Fatalf("%v", err)
	}
	for _, file := range []string{"/etc/resolv.conf", "/etc/networks"} {
		if _, err := os.Stat(file); err == nil {
			binds = append(binds, bind{empty, file})
		}
	}
	return binds
}

// addHost connects a host: the node is .1 and ::1, the host .2 and ::2.
func (n *Node) addHost(t TB, name, net4, net6 string) *Host {
	t.Helper()
	h := &Host{
		Space: NewSpace(t, name), node: n, nodeSide: name,
		IPv4: netip.MustParseAddr(net4 + "2"), IPv6: netip.MustParseAddr(net6 + "2"),
	}
	n.ip(t,
		n.veth(name, h.Space),
		"addr add "+net4+"1/24 dev "+name,
		"addr add "+net6+"1/64 dev "+name+" nodad",
		"link set "+name+" up")
	h.ip(t,
		"addr add "+h.IPv4.String()+"/24 dev eth0",
		"addr add "+h.IPv6.String()+"/64 dev eth0 nodad",
		"link set eth0 up",
		"route add default via "+net4+"1",
		"route add default via "+net6+"1")
	h.Serve(t, h.IPv4)
	h.Serve(t, h.IPv6)
	return h
}

// veth is the command that links the node to eth0 of the other space. The two
// ends must not have the same number by chance: the kernel then takes up to a
// second to notice that the link is up, and IPv6 waits for it.
func (n *Node) veth(name string, to *Space) string {
	n.links++
	return fmt.Sprintf("link add %s index %d type veth peer name eth0 netns %s", name, 100+n.links, to.Name)
}

// AddAddr gives the host one more address, which the node routes to it and on
// which it answers: a destination in any range that a policy speaks of.
func (h *Host) AddAddr(t TB, addr string) netip.Addr {
	t.Helper()
	a := netip.MustParseAddr(addr)
	via, bits, at := h.IPv4, "/32", " dev lo"
	if a.Is6() {
		via, bits, at = h.IPv6, "/128", " dev lo nodad"
	}
	h.ip(t, "addr add "+addr+bits+at)
	h.node.ip(t, "route add "+addr+bits+" via "+via.String()+" dev "+h.nodeSide)
	h.Serve(t, a)
	return a
}
