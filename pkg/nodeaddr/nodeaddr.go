// Package nodeaddr reads the addresses that connections of other software can be given as their source: those of the node's own
// that work. The kernel is asked by netlink, and reports changes.
//
// It refuses to choose: which of the addresses are meant is the policy's to say. It reads those of the network namespace of the
// calling thread.
package nodeaddr

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Addresses are the node's own that work, on whatever interface, sorted and each once. That of the loopback counts, because
// addresses which routers are told of stand there; 127.0.0.0/8, ::1 and fe80::/10 do not, because nobody can answer them.
type Addresses struct {
	Preferred []netip.Addr
	// Deprecated are addresses whose preferred lifetime is over, IPv6 as a rule. They work, but new connections should have another one. Some
	// are deprecated from the start so that nothing takes them by itself, as keepalived does with what it moves between nodes.
	Deprecated []netip.Addr
}

// In returns the addresses that lie in the prefixes, sorted and each once: of each prefix those that are preferred, and where it has
// none of these, those that are deprecated.
func (a Addresses) In(prefixes []netip.Prefix) (all []netip.Addr) {
	for _, prefix := range prefixes {
		found := within(prefix, a.Preferred)
		if len(found) == 0 {
			found = within(prefix, a.Deprecated)
		}
		all = append(all, found...)
	}
	policy.SortAddresses(all)
	return slices.Compact(all)
}

func within(prefix netip.Prefix, addresses []netip.Addr) (all []netip.Addr) {
	for _, address := range addresses {
		if prefix.Contains(address) {
			all = append(all, address)
		}
	}
	return all
}

// List asks the kernel.
func List() (Addresses, error) {
	fd, err := open()
	if err != nil {
		return Addresses{}, fmt.Errorf("list the node's addresses: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	var a Addresses
	if err := a.dump(fd); err != nil {
		return Addresses{}, fmt.Errorf("list the node's addresses: %w", err)
	}
	for _, list := range []*[]netip.Addr{&a.Preferred, &a.Deprecated} {
		policy.SortAddresses(*list)
		*list = slices.Compact(*list)
	}
	return a, nil
}

// dump sends RTM_GETADDR for both families and reads until the end of the answer. An answer that the kernel marks as interrupted
// may lack an address, because others came and went meanwhile: their events follow.
func (a *Addresses) dump(fd int) error {
	order := binary.NativeEndian
	m := order.AppendUint32(nil, unix.NLMSG_HDRLEN+unix.SizeofIfAddrmsg)
	m = order.AppendUint16(m, unix.RTM_GETADDR)
	m = order.AppendUint16(m, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	m = append(m, make([]byte, 8+unix.SizeofIfAddrmsg)...) // sequence and port; any family, any interface
	if err := unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buffer := make([]byte, 64<<10)
	for {
		size, _, err := unix.Recvfrom(fd, buffer, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		for typ, body := range messages(buffer[:size]) {
			switch typ {
			case unix.NLMSG_DONE:
				return nil
			case unix.NLMSG_ERROR:
				return errorOf(body)
			case unix.RTM_NEWADDR:
				a.add(parse(body))
			}
		}
	}
}

func (a *Addresses) add(address netip.Addr, flags uint32) {
	const unusable = unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED // another node may have it
	switch {
	case !address.IsValid() || flags&unusable != 0 || !meant(address):
	case flags&unix.IFA_F_DEPRECATED != 0:
		a.Deprecated = append(a.Deprecated, address)
	default:
		a.Preferred = append(a.Preferred, address)
	}
}

// meant leaves out what is no source for others.
func meant(address netip.Addr) bool {
	return !address.IsLoopback() && (address.Is4() || !address.IsLinkLocalUnicast())
}
