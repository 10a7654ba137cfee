// Package autoports chooses the source ports of masqueraded connections so that they are nobody else's on the node: neither those
// of Services nor those that the kernel gives to the node's own sockets.
//
// It refuses to look at connections: a port that is free now may be taken at any moment, and a range that others take ports from
// is theirs also while they take none.
package autoports

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// DefaultNodePorts is the API server's default of --service-node-port-range, which nothing on a node tells.
const DefaultNodePorts = "30000-32767"

// Below firstPort are the ports of services; the kernel does not masquerade with them either, unless it is made to.
const (
	firstPort = 1024
	lastPort  = 65535
)

// Taken are the ranges of a node's ports from which others take theirs.
type Taken struct {
	NodePorts policy.PortRange  // of Services
	Local     policy.PortRange  // net.ipv4.ip_local_port_range, which is IPv6's as well
	Reserved  policy.PortRanges // net.ipv4.ip_local_reserved_ports
}

// Free lists the ranges that nobody takes ports from, in order. That there is none is an error.
func (t Taken) Free() (policy.PortRanges, error) {
	taken := append(policy.PortRanges{t.NodePorts, t.Local}, t.Reserved...)
	slices.SortFunc(taken, func(a, b policy.PortRange) int { return int(a.First) - int(b.First) })
	var free policy.PortRanges
	next := firstPort
	for _, r := range taken {
		if int(r.First) > next {
			free = append(free, policy.PortRange{First: uint16(next), Last: r.First - 1})
		}
		next = max(next, int(r.Last)+1)
	}
	if next <= lastPort {
		free = append(free, policy.PortRange{First: uint16(next), Last: lastPort})
	}
	if len(free) == 0 {
		return nil, fmt.Errorf("to-ports auto: no port is left (%s): narrow net.ipv4.ip_local_port_range, or write ranges instead of auto", t)
	}
	return free, nil
}

// String names the ranges.
func (t Taken) String() string {
	text := fmt.Sprintf("node ports %s, local ports %s", t.NodePorts, t.Local)
	if len(t.Reserved) > 0 {
		text += fmt.Sprintf(", reserved ports %s", t.Reserved)
	}
	return text
}

// Sysctls is where the kernel tells the ports of the network namespace that the reader is in.
const Sysctls = "/proc/sys/net/ipv4"

// Read asks the kernel. What it does not know are the node ports.
func Read(sysctls string, nodePorts policy.PortRange) (Taken, error) {
	t := Taken{NodePorts: nodePorts}
	local, err := read(sysctls, "ip_local_port_range")
	if err == nil {
		t.Local, err = policy.ParsePortRange(strings.Join(strings.Fields(local), "-"))
	}
	if err != nil {
		return t, fmt.Errorf("to-ports auto: net.ipv4.ip_local_port_range: %w", err)
	}
	reserved, err := read(sysctls, "ip_local_reserved_ports")
	if err == nil {
		t.Reserved, err = policy.ParsePortRanges(reserved)
	}
	if err != nil {
		return t, fmt.Errorf("to-ports auto: net.ipv4.ip_local_reserved_ports: %w", err)
	}
	return t, nil
}

func read(sysctls, name string) (string, error) {
	data, err := os.ReadFile(filepath.Join(sysctls, name))
	return strings.TrimSpace(string(data)), err
}
