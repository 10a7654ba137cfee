package backendtest

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// multicast sends from a node that has a pod's address, because nothing routes multicast from pods here. With all sources it is
// a destination like any other, as for the Kubernetes agent; a pod's multicast is left alone.
func multicast(f *fixture) {
	f.withNode()
	f.space.Run(f.T, "sh", "-ec", "ip addr add 10.244.77.7/32 dev lo; ip -6 addr add fd00:244::77/128 dev lo nodad")
	pod := attachment.Attachment{
		Owner:     attachment.Owner{Network: "net", ContainerID: "pod", IfName: "eth0"},
		Addresses: []netip.Addr{netip.MustParseAddr("10.244.77.7")},
	}
	if f.s.IPv6 {
		pod.Addresses = append(pod.Addresses, netip.MustParseAddr("fd00:244::77"))
	}
	for _, c := range []struct {
		sources    policy.Sources
		masquerade bool
	}{{policy.SourcesAll, true}, {policy.SourcesPods, false}, {policy.SourcesAll, true}} {
		f.s.Sources = c.sources
		f.settle(f.state(f.policy(), pod))
		for _, from := range pod.Addresses {
			group, want := netip.MustParseAddr("239.1.2.3"), nodeInternet4
			if from.Is6() {
				group, want = netip.MustParseAddr("ff05::1:2:3"), nodeInternet6
			}
			if !c.masquerade {
				want = from
			}
			if got := f.multicastSeen(from, group); got != want {
				f.Errorf("--sources=%s: multicast to %s is seen from %s, want %s", c.sources, group, got, want)
			}
		}
	}
	// A prefix that the policy keeps is kept, multicast or not.
	p := f.policy()
	p.NonMasquerade = append(p.NonMasquerade, policy.IPv4.Multicast())
	f.settle(f.state(p))
	if got := f.multicastSeen(pod.Addresses[0], netip.MustParseAddr("239.1.2.3")); got != pod.Addresses[0] {
		f.Errorf("multicast of a prefix that is kept is seen from %s", got)
	}
}

// multicastPort makes every packet a new connection.
var multicastPort = 20000

// multicastSeen sends one packet from the node to a group and returns the source that arrives at the internet's host.
func (f *fixture) multicastSeen(from, group netip.Addr) (seen netip.Addr) {
	f.Helper()
	multicastPort++
	target := netip.AddrPortFrom(group, uint16(multicastPort)) //nolint:gosec // a few calls
	listening, done := make(chan error, 1), make(chan error, 1)
	go func() {
		done <- f.node.Internet.Do(func() (err error) {
			seen, err = sourceOf(target, listening)
			return err
		})
	}()
	f.must(<-listening, "listen")
	f.must(f.space.Do(func() error { return sendMulticast("internet", from, target) }), "send")
	f.must(<-done, "receive")
	return seen
}

func sendMulticast(device string, from netip.Addr, to netip.AddrPort) error {
	family := unix.AF_INET
	var address, target unix.Sockaddr
	if from.Is6() {
		family = unix.AF_INET6
		address, target = &unix.SockaddrInet6{Addr: from.As16()}, &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}
	} else {
		address, target = &unix.SockaddrInet4{Addr: from.As4()}, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.BindToDevice(fd, device); err != nil {
		return err
	}
	if err := unix.Bind(fd, address); err != nil {
		return err
	}
	return unix.Sendto(fd, []byte("multicast"), 0, target)
}

// sourceOf reads packets off the wire until one goes to the target.
func sourceOf(target netip.AddrPort, listening chan<- error) (netip.Addr, error) {
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(all))
	listening <- err
	if err != nil {
		return netip.Addr{}, err
	}
	defer func() { _ = unix.Close(fd) }()
	timeout := unix.NsecToTimeval(int64(5 * time.Second))
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout)
	packet := make([]byte, 2048)
	for {
		n, _, err := unix.Recvfrom(fd, packet, 0)
		if err != nil {
			return netip.Addr{}, fmt.Errorf("no packet to %s: %w", target, err)
		}
		source, destination, ports := addressesOf(packet[:n])
		if destination == target.Addr() && len(ports) >= 4 && binary.BigEndian.Uint16(ports[2:]) == target.Port() {
			return source, nil
		}
	}
}

// addressesOf takes a packet apart that has no options.
func addressesOf(packet []byte) (source, destination netip.Addr, ports []byte) {
	switch {
	case len(packet) >= 20 && packet[0]>>4 == 4:
		source, _ = netip.AddrFromSlice(packet[12:16])
		destination, _ = netip.AddrFromSlice(packet[16:20])
		return source, destination, packet[20:]
	case len(packet) >= 40 && packet[0]>>4 == 6:
		source, _ = netip.AddrFromSlice(packet[8:24])
		destination, _ = netip.AddrFromSlice(packet[24:40])
		return source, destination, packet[40:]
	}
	return source, destination, nil
}
