package iptables

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// An egress group has a chain of its own, to which its destinations go (-g). So a change of the node's addresses rewrites that
// chain alone, and the shared chain with its counters stays.

// groupRules are the rules of a group's chain. Whoever comes here is bound for one of the group's destinations, and for none of
// the node's own addresses.
func groupRules(s policy.Settings, table ruleset.Table, g ruleset.Group) []rule {
	rules := askSources(s, table, rule{"-m", "comment", "--comment", chosenComment})
	switch {
	case len(g.Addresses) > 0:
		return append(rules, poolRules(s, table.Family, g)...)
	case g.Missing == policy.Drop:
		return append(rules, dropRule(g.Number))
	}
	return append(rules, portRules(s, nil, comment(missingComment(g.Number)), masquerade(s))...)
}

func missingComment(number int) string {
	return groupName(number) + ", whose source addresses this node lacks"
}

// poolRules give every source the address that policy.Choose says, by the last bits of its own. The last address takes what no
// rule before has taken. Rules of one address cannot be combined: two sources of one address whose bits differ in one place alone
// would have to be a multiple of the pool's size apart, and that is a power of two only where each address has one rule.
//
// -s compares any bits, but iptables-nft 1.8.7 (Debian 11, Ubuntu 22.04) compares none where a mask begins with eight zeros, and
// the kernel refuses the rule. So the mask has the first bit as well, and there are two rules, one for either half of the addresses.
func poolRules(s policy.Settings, family policy.Family, g ruleset.Group) (rules []rule) {
	last := g.Addresses[len(g.Addresses)-1]
	buckets := policy.Buckets(len(g.Addresses))
	mask := bits(family, secondHalf, buckets-1).String()
	for bucket := range buckets {
		address := policy.Choose(g.Addresses, bits(family, 0, bucket))
		if address == last {
			continue
		}
		for _, half := range []byte{0, secondHalf} {
			match := rule{"-s", bits(family, half, bucket).String() + "/" + mask}
			rules = append(rules, portRules(s, match, comment(groupName(g.Number)), translate(s, address))...)
		}
	}
	return append(rules, portRules(s, nil, comment(groupName(g.Number)), translate(s, last))...)
}

// secondHalf is the first byte of the second half of all addresses.
const secondHalf = 0x80

// bits is an address of zeros but for its first and its last byte.
func bits(family policy.Family, first byte, last int) netip.Addr {
	bytes := make([]byte, family.Bits()/8)
	bytes[0], bytes[len(bytes)-1] = first, byte(last)
	address, _ := netip.AddrFromSlice(bytes)
	return address
}

// translate is the target for an address that the policy chose. With ports, IPv6 wants the address in brackets.
func translate(s policy.Settings, to netip.Addr) target {
	return func(ports string) rule {
		text := to.String()
		if ports != "" {
			text = netip.AddrPortFrom(to, 0).String()
			text = text[:len(text)-1] + ports
		}
		return randomly(s, rule{"-j", "SNAT", "--to-source", text})
	}
}

// dropQueue is a queue that nobody is expected to listen to: the highest number, where programs count from 0.
const dropQueue = 65535

// dropRule drops: iptables refuses DROP in table nat ("The "nat" table is not intended for filtering"), and a packet that is
// handed to a queue without a listener is dropped, unless the rule says --queue-bypass (iptables-extensions(8), NFQUEUE; the
// kernel's nf_queue, which frees a packet for which there is no queue). The connection is not confirmed then, so that its next
// packet is asked again.
func dropRule(number int) rule {
	return join(comment(missingComment(number)+dropComment), rule{"-j", "NFQUEUE", "--queue-num", strconv.Itoa(dropQueue)})
}

const (
	dropComment    = ": nobody listens to this queue, so that the kernel drops"
	discardComment = ": the kernel cannot drop here without NFQUEUE, and gives an address that gets no answer"
)

func isDrop(r rule) bool { return r.target() == "NFQUEUE" }

// discards replaces the rules that drop by what needs no further module of the kernel: a source address by which nothing finds
// its way back, and which is no other host's. Packets leave, but with no address that the policy did not choose.
func discards(family policy.Family, rules []rule) []rule {
	out := slices.Clone(rules)
	for i, r := range out {
		if isDrop(r) {
			out[i] = discardRule(family, r)
		}
	}
	return out
}

// discardRule uses the dummy address of RFC 7600, and for IPv6 the discard-only prefix of RFC 6666.
func discardRule(family policy.Family, drop rule) rule {
	to := "192.0.0.8"
	if family == policy.IPv6 {
		to = "100::1"
	}
	return join(comment(strings.TrimSuffix(drop.value("--comment"), dropComment)+discardComment), rule{"-j", "SNAT", "--to-source", to})
}
