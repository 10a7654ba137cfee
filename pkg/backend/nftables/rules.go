package nftables

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// The comments of our rules. Those of the shared chain are the words of the Kubernetes documentation, which people grep for.
const (
	keepComment       = "ip-masq-agent: cluster-local traffic should not be subject to MASQUERADE"
	localComment      = "ip-masq-agent: local traffic should not be subject to MASQUERADE"
	countComment      = "ip-masq-agent: counts what is masqueraded"
	prefixesComment   = "ip-masq-agent: counts destinations that are masqueraded"
	masqueradeComment = "ip-masq-agent: outbound traffic should be subject to MASQUERADE (this match must come after cluster-local CIDR matches)"
	verdictsComment   = "ip-masq-agent: destinations that keep their address or get a chosen one"
	interfaceComment  = "ip-masq-agent: leaves through an interface whose traffic is not masqueraded"
	sourcesComment    = "ip-masq-agent: source addresses that pods chose"
	egressComment     = "ip-masq-agent: egress from "
	dropComment       = "ip-masq-agent: the node has no source address for these destinations"
	podsRootComment   = "ip-masq-agent: pods"
	nodeRootComment   = "ip-masq-agent: what is no pod's"
	allRootComment    = "ip-masq-agent: all sources"
)

// piece is a part of a rule in both forms: as nft prints it, and as the kernel takes it.
type piece struct {
	text  string
	exprs [][]byte
}

func part(text string, exprs ...[]byte) piece { return piece{text, exprs} }

func newRule(chain, comment string, pieces ...piece) nfnl.Rule {
	r := nfnl.Rule{Table: tableName, Chain: chain, Comment: comment}
	var words []string
	for _, p := range pieces {
		if p.text != "" {
			words = append(words, p.text)
		}
		r.Exprs = append(r.Exprs, p.exprs...)
	}
	r.Text = strings.Join(words, " ")
	return r
}

// rootRules lead a family's traffic from the base chain into the shared chain. They go there, so that the verdict of the
// shared chain is final, and what comes to the second is no pod's.
func rootRules(s policy.Settings, f policy.Family) []nfnl.Rule {
	if s.Sources == policy.SourcesAll {
		return []nfnl.Rule{newRule(baseChain, allRootComment, isFamily(f), addressType(unix.NFT_CMP_NEQ, "!= local"), goTo(s.Chain))}
	}
	rules := []nfnl.Rule{newRule(baseChain, podsRootComment, inSet(f, "saddr", podsSet(f)), goTo(s.Chain))}
	if s.NodeTraffic {
		rules = append(rules, newRule(baseChain, nodeRootComment,
			address(f, "saddr", "!= @"+optedOutSet(f), nfnl.LookUpNot(optedOutSet(f))), addressType(unix.NFT_CMP_NEQ, "!= local"), goTo(s.Chain)))
	}
	return rules
}

// share is what a family has in the shared chain.
type share struct {
	family       policy.Family
	destinations string // the set or the map that is looked into
	sources      bool   // pods may have chosen a source address
	counts       bool   // prefixes masquerade, and are counted
}

// chainRules are the rules of the shared chain. They do not depend on the destinations, which are in the sets. Where two families share
// the chain, further rules tell their counts apart.
func chainRules(s policy.Settings, interfaces policy.Interfaces, shares []share) []nfnl.Rule {
	var lookUps, ahead, counts []nfnl.Rule
	var on []policy.Family
	for _, of := range shares {
		f := of.family
		on = append(on, f)
		lookUps = append(lookUps, lookUpRule(s, f, of.destinations))
		if of.sources {
			ahead = append(ahead, sourcesRules(s.Chain, s, f)...)
		}
		if of.counts {
			ahead = append(ahead, newRule(s.Chain, prefixesComment, inSet(f, "daddr", masqueradeSet(f))))
		}
		if len(shares) > 1 {
			counts = append(counts, newRule(s.Chain, countComment, isFamily(f), counter()))
		}
	}
	rules := append(interfaceRules(s, interfaces, on), lookUps...)
	if len(shares) > 1 {
		rules = append(rules, localRule(s, isFamily(policy.IPv6))) // which leaves IPv4 to the next
	}
	rules = append(rules, localRule(s))
	return slices.Concat(rules, ahead, counts, masqueradeRules(s))
}

// localRule keeps the address of what is bound for the node itself.
func localRule(s policy.Settings, match ...piece) nfnl.Rule {
	return newRule(s.Chain, localComment, slices.Concat(match, []piece{addressType(unix.NFT_CMP_EQ, "local"), counter(), giveBack()})...)
}

// lookUpRule looks into one of the sets of destinations, or into one of the maps.
func lookUpRule(s policy.Settings, f policy.Family, name string) nfnl.Rule {
	if slices.Contains(verdictMaps(f), name) {
		return newRule(s.Chain, verdictsComment, address(f, "daddr", "vmap @"+name, nfnl.LookUpVerdict(name)))
	}
	return newRule(s.Chain, keepComment, inSet(f, "daddr", name), counter(), giveBack())
}

// countOn lets a rule count on from the one that it replaces: where another set of destinations is looked into, and where a group
// has another address.
func countOn(r nfnl.Rule, want, former []nfnl.Rule) nfnl.Rule {
	if r.Comment != keepComment && !strings.HasPrefix(r.Comment, egressComment) {
		return r
	}
	same := alike(r, former)
	i := slices.IndexFunc(alike(r, want), func(w nfnl.Rule) bool { return nfnl.SameExprs(r.Exprs, w.Exprs) })
	if i < 0 || len(same) != len(alike(r, want)) {
		return r
	}
	r.Exprs = slices.Clone(r.Exprs)
	for j, e := range r.Exprs {
		if nfnl.ExprName(e) == "counter" {
			r.Exprs[j] = nfnl.CountOn(nfnl.Counted(same[i]))
		}
	}
	return r
}

// alike returns the rules that have the comment and the family of r.
func alike(r nfnl.Rule, rules []nfnl.Rule) (same []nfnl.Rule) {
	family, ok := familyOf(r)
	for _, other := range rules {
		if f, is := familyOf(other); is == ok && f == family && other.Comment == r.Comment {
			same = append(same, other)
		}
	}
	return same
}

// portProtocols are those whose source port masquerading can choose.
var portProtocols = []struct {
	name   string
	number byte
}{{"tcp", unix.IPPROTO_TCP}, {"udp", unix.IPPROTO_UDP}, {"sctp", unix.IPPROTO_SCTP}}

// masqueradeRules masquerade whatever comes to them.
func masqueradeRules(s policy.Settings) []nfnl.Rule {
	return portRules(s, s.Chain, masqueradeComment, nil, func(ports policy.PortRange) piece { return masquerade(s.RandomFully, ports) })
}

// portRules translate whatever comes to them. With port ranges each protocol chooses among them at random, in
// proportion to their sizes, and protocols without ports fall through to the last rule.
func portRules(s policy.Settings, chain, comment string, match []piece, to func(policy.PortRange) piece) (rules []nfnl.Rule) {
	forPorts(s.ToPorts, func(more []piece, ports policy.PortRange) {
		rules = append(rules, newRule(chain, comment, slices.Concat(match, more, []piece{counter(), to(ports)})...))
	})
	return rules
}

// forPorts visits the ranges with what selects a packet for each, and at the end no range for what is left.
func forPorts(ranges policy.PortRanges, visit func(match []piece, ports policy.PortRange)) {
	for _, protocol := range portProtocols {
		remaining := ranges.Size()
		for _, ports := range ranges {
			visit([]piece{l4proto(protocol.name, protocol.number), portion(ports.Size(), remaining)}, ports)
			remaining -= ports.Size()
		}
	}
	visit(nil, policy.PortRange{})
}

// familyOf returns the family that a rule is for; ok is false for rules of both.
func familyOf(r nfnl.Rule) (f policy.Family, ok bool) {
	for _, f := range families {
		if match := isFamily(f).exprs; len(r.Exprs) >= len(match) && nfnl.SameExprs(match, r.Exprs[:len(match)]) {
			return f, true
		}
	}
	return 0, false
}

// sameRule reports whether a rule that was read is the one that would be written.
func sameRule(want, got nfnl.Rule) bool {
	return want.Comment == got.Comment && nfnl.SameExprs(want.Exprs, got.Exprs)
}

func hasRule(rules []nfnl.Rule, want nfnl.Rule) bool {
	return slices.ContainsFunc(rules, func(got nfnl.Rule) bool { return sameRule(want, got) })
}

// isFamily selects a family; nft prints it only where no address of the family is matched after it.
func isFamily(f policy.Family) piece {
	name, number := "ipv4", byte(unix.NFPROTO_IPV4)
	if f == policy.IPv6 {
		name, number = "ipv6", unix.NFPROTO_IPV6
	}
	return part("meta nfproto "+name, nfnl.LoadMeta(unix.NFT_META_NFPROTO), nfnl.Compare(unix.NFT_CMP_EQ, []byte{number}))
}

// inSet looks up a packet's source or destination address.
func inSet(f policy.Family, field, set string) piece {
	return address(f, field, "@"+set, nfnl.LookUp(set))
}

// address does something with a packet's source or destination address.
func address(f policy.Family, field, text string, what []byte) piece {
	offset, size := map[string]uint32{"saddr": 12, "daddr": 16}, uint32(4)
	if f == policy.IPv6 {
		offset, size = map[string]uint32{"saddr": 8, "daddr": 24}, 16
	}
	p := isFamily(f)
	p.text = fmt.Sprintf("%s %s %s", protocolOf(f), field, text)
	p.exprs = append(p.exprs, nfnl.LoadNetwork(offset[field], size), what)
	return p
}

// loadSource loads a packet's source address.
func loadSource(f policy.Family) []byte {
	if f == policy.IPv6 {
		return nfnl.LoadNetwork(8, 16)
	}
	return nfnl.LoadNetwork(12, 4)
}

// protocolOf is nft's word for a family's header.
func protocolOf(f policy.Family) string {
	if f == policy.IPv6 {
		return "ip6"
	}
	return "ip"
}

// addressType compares the type of the destination address with local, as iptables' addrtype match does.
func addressType(operation uint32, text string) piece {
	local := binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)
	return part("fib daddr type "+text, nfnl.LoadDestinationType(), nfnl.Compare(operation, local))
}

func l4proto(name string, number byte) piece {
	return part("meta l4proto "+name, nfnl.LoadMeta(unix.NFT_META_L4PROTO), nfnl.Compare(unix.NFT_CMP_EQ, []byte{number}))
}

// portion matches size out of remaining packets.
func portion(size, remaining int) piece {
	if size >= remaining {
		return piece{}
	}
	limit := binary.BigEndian.AppendUint32(nil, uint32(size))
	return part(fmt.Sprintf("numgen random mod %d < %d", remaining, size),
		nfnl.LoadRandom(uint32(remaining)), nfnl.ToNetworkOrder(), nfnl.Compare(unix.NFT_CMP_LT, limit))
}

func counter() piece { return part("counter", nfnl.Count()) }

func giveBack() piece { return part("return", nfnl.Return()) }

func drop() piece { return part("drop", nfnl.Drop()) }

func goTo(chain string) piece { return part("goto "+chain, nfnl.GoTo(chain)) }

// masquerade takes the node's address, and a source port out of ports unless that is empty.
func masquerade(randomFully bool, ports policy.PortRange) piece {
	text, flags := "masquerade", uint32(0)
	if ports != (policy.PortRange{}) {
		text += fmt.Sprintf(" to :%s", ports)
	}
	if randomFully {
		text, flags = text+" fully-random", unix.NF_NAT_RANGE_PROTO_RANDOM_FULLY
	}
	return part(text, nfnl.Masquerade(flags, ports.First, ports.Last)...)
}
