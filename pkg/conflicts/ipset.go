package conflicts

import (
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
)

// ipset is a set of addresses or prefixes that iptables' match set asks. Sets of other things are not understood.
type ipset struct {
	name    string
	entries uint32
	ranges  ranges // once they were listed
	listed  bool
}

// addressSets are the types of ipset whose members are addresses and nothing beside them.
var addressSets = []string{"hash:ip", "hash:net", "bitmap:ip"}

const (
	// maxMembers bounds how many members of a set are listed; a larger one is asked about single addresses.
	maxMembers = 1024
	// maxSamples bounds how many addresses are asked of a large set.
	maxSamples = 256
)

// lookUp returns nil for a set that is not there, or not one of addresses.
func (k *kernelNode) lookUp(name string) *ipset {
	set, asked := k.sets[name]
	if !asked {
		set = &ipset{name: name}
		kind := ""
		err := set.read(listHeader, func(header nfnl.Attributes) {
			kind = header.Text(nl.IPSET_ATTR_TYPENAME)
			set.entries = header.Find(nl.IPSET_ATTR_DATA).Uint32(nl.IPSET_ATTR_ELEMENTS)
		})
		if err != nil || !slices.Contains(addressSets, kind) {
			set = nil
		}
		k.sets[name] = set
	}
	return set
}

// listHeader asks for a set without its members (IPSET_FLAG_LIST_HEADER, linux/netfilter/ipset/ip_set.h).
const listHeader = 1 << 2

// read asks for a set and visits the messages of the answer. The library's own IpsetList knows no flags, and complains to
// standard error about attributes that it does not know.
func (s *ipset) read(flags uint32, visit func(nfnl.Attributes)) error {
	req := nl.NewNetlinkRequest(nl.IPSET_CMD_LIST|unix.NFNL_SUBSYS_IPSET<<8, nl.GetIpsetFlags(nl.IPSET_CMD_LIST))
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_NETLINK, Version: nl.NFNETLINK_V0})
	req.AddData(nl.NewRtAttr(nl.IPSET_ATTR_PROTOCOL, nl.Uint8Attr(nl.IPSET_PROTOCOL)))
	req.AddData(nl.NewRtAttr(nl.IPSET_ATTR_SETNAME, nl.ZeroTerminated(s.name)))
	req.AddData(&nl.Uint32Attribute{Type: nl.IPSET_ATTR_FLAGS | nl.NLA_F_NET_BYTEORDER, Value: flags})
	messages, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	for _, m := range messages {
		visit(m[nl.SizeofNfgenmsg:])
	}
	return err
}

// has asks the kernel about one address.
func (s *ipset) has(addr netip.Addr) bool {
	found, err := netlink.IpsetTest(s.name, &netlink.IPSetEntry{IP: addr.AsSlice()})
	return err == nil && found
}

func (k *kernelNode) members(name string) func(netip.Addr) bool {
	if set := k.lookUp(name); set != nil {
		return set.has
	}
	return nil
}

func (k *kernelNode) splitBySet(name string, to ranges) (both, rest ranges, ok bool) {
	set := k.lookUp(name)
	switch {
	case set == nil:
		return nil, nil, false
	case set.list():
		both, rest = to.split(set.ranges)
	default:
		both, rest = set.sample(to)
	}
	return both, rest, true
}

// list reads the members of a small set and reports whether they are known. The kernel is asked about each, because one may be
// an exception (nomatch).
func (s *ipset) list() bool {
	if s.listed || s.entries > maxMembers {
		return s.listed
	}
	var members []addrRange
	understood := true
	err := s.read(0, func(message nfnl.Attributes) {
		for _, entry := range message.Find(nl.IPSET_ATTR_ADT).All() {
			member, ok := decodeMember(entry)
			understood = understood && ok && s.has(member.first)
			members = append(members, member)
		}
	})
	if s.listed = err == nil && understood; s.listed {
		s.ranges = rangesOf(members...)
	}
	return s.listed
}

func decodeMember(attrs nfnl.Attributes) (addrRange, bool) {
	first, last := memberAddr(attrs.Find(nl.IPSET_ATTR_IP)), memberAddr(attrs.Find(nl.IPSET_ATTR_IP_TO))
	bits := first.BitLen()
	if length := attrs.Find(nl.IPSET_ATTR_CIDR); len(length) == 1 {
		bits = int(length[0])
	}
	prefix := netip.PrefixFrom(first, bits)
	switch {
	case !prefix.IsValid():
		return addrRange{}, false
	case last.IsValid():
		return addrRange{first, last}, true
	}
	return rangeOf(prefix), true
}

// memberAddr reads an address: IPSET_ATTR_IPADDR_IPV4 or IPSET_ATTR_IPADDR_IPV6.
func memberAddr(attrs nfnl.Attributes) netip.Addr {
	for _, value := range attrs.All() {
		addr, _ := netip.AddrFromSlice(value)
		return addr
	}
	return netip.Addr{}
}

// sample asks about the first address of the ranges.
func (s *ipset) sample(to ranges) (both, rest ranges) {
	for _, r := range to[:min(len(to), maxSamples)] {
		if s.has(r.first) {
			both = append(both, addrRange{r.first, r.first})
		} else {
			rest = append(rest, addrRange{r.first, r.first})
		}
	}
	return both, rest
}
