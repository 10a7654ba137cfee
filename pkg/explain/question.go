package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Question is about the first packet of a connection.
type Question struct {
	Source      netip.Addr // invalid where the pod is named
	Pod         attachment.Pod
	Destination netip.Addr
	Port        uint16 // of the destination; 0 where it is not asked about
	Protocol    string // a name of Protocols; empty where it is not asked about
}

// protocols are those that can be asked about, by name.
var protocols = map[string]uint8{
	"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP, "icmp": unix.IPPROTO_ICMP, "icmpv6": unix.IPPROTO_ICMPV6,
}

// Protocols are the names that --proto takes.
func Protocols() []string { return []string{"tcp", "udp", "sctp", "icmp", "icmpv6"} }

// Parse reads a source, which is an address or NAMESPACE/NAME, a destination with or without a port, and a protocol or nothing.
func Parse(src, dst, proto string) (Question, error) {
	q := Question{Protocol: strings.ToLower(proto)}
	if namespace, name, named := strings.Cut(src, "/"); named && namespace != "" && name != "" && !strings.Contains(name, "/") {
		q.Pod = attachment.Pod{Namespace: namespace, Name: name}
	} else if addr, err := netip.ParseAddr(src); err == nil && addr.Zone() == "" {
		q.Source = addr.Unmap()
	} else {
		return Question{}, fmt.Errorf("--src %q: want the address of a pod, or NAMESPACE/NAME", src)
	}
	var err error
	if q.Destination, q.Port, err = parseDestination(dst); err != nil {
		return Question{}, err
	}
	if q.Source.IsValid() && q.Source.Is4() != q.Destination.Is4() {
		return Question{}, fmt.Errorf("--src %q --dst %q: want two addresses of one family", src, dst)
	}
	if _, known := protocols[q.Protocol]; !known && q.Protocol != "" {
		return Question{}, fmt.Errorf("--proto %q: want one of %s", proto, strings.Join(Protocols(), ", "))
	}
	if q.Port != 0 && strings.HasPrefix(q.Protocol, "icmp") {
		return Question{}, fmt.Errorf("--dst %q --proto %s: this protocol has no ports", dst, proto)
	}
	return q, nil
}

func parseDestination(dst string) (netip.Addr, uint16, error) {
	if addr, err := netip.ParseAddr(strings.Trim(dst, "[]")); err == nil && addr.Zone() == "" {
		return addr.Unmap(), 0, nil
	}
	if with, err := netip.ParseAddrPort(dst); err == nil && with.Port() != 0 && with.Addr().Zone() == "" {
		return with.Addr().Unmap(), with.Port(), nil
	}
	return netip.Addr{}, 0, fmt.Errorf("--dst %q: want an address, or one with a port, such as 192.0.2.7:443 or [2001:db8::7]:443", dst)
}

// destination is the destination with the port, if it was asked about.
func (q Question) destination() string {
	if q.Port == 0 {
		return q.Destination.String()
	}
	return netip.AddrPortFrom(q.Destination, q.Port).String()
}

func (q Question) String() string {
	text := q.Source.String() + " -> " + q.destination()
	if q.Protocol != "" {
		text += "/" + q.Protocol
	}
	return text
}

// family is that of the packet.
func (q Question) family() policy.Family { return policy.FamilyOf(q.Destination) }

// isOf reports whether one of the attachments has an address.
func isOf(attachments []attachment.Attachment, addr netip.Addr) bool {
	return slices.ContainsFunc(attachments, func(a attachment.Attachment) bool { return slices.Contains(a.Addresses, addr) })
}
