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
	masqueradeComment = "ip-masq-agent: outbound traffic should be subject to MASQUERADE (this match must come after cluster-local CIDR matches)"
	podsRootComment   = "ip-masq-agent: pods"
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

// rootRule leads a family's traffic from the base chain into the shared chain. It goes there, so that the verdict of the
// shared chain is final.
func rootRule(s policy.Settings, f policy.Family) nfnl.Rule {
	if s.Sources == policy.SourcesAll {
		return newRule(baseChain, allRootComment, isFamily(f), addressType(unix.NFT_CMP_NEQ, "!= local"), goTo(s.Chain))
	}
	return newRule(baseChain, podsRootComment, inSet(f, "saddr", podsSet(f)), goTo(s.Chain))
}

// chainRules are the rules of the shared chain. They do not depend on the destinations, which are in the sets. Where two families share
// the chain, further rules tell their counts apart.
func chainRules(s policy.Settings, families []policy.Family, keep map[policy.Family]string) []nfnl.Rule {
	var rules, counts []nfnl.Rule
	for _, f := range families {
		rules = append(rules, keepRule(s, f, keep[f]))
		if len(families) > 1 {
			counts = append(counts, newRule(s.Chain, countComment, isFamily(f), counter()))
		}
	}
	if len(families) > 1 {
		rules = append(rules, localRule(s, isFamily(policy.IPv6))) // which leaves IPv4 to the next
	}
	rules = append(rules, localRule(s))
	return slices.Concat(rules, counts, masqueradeRules(s))
}

// localRule keeps the address of what is bound for the node itself.
func localRule(s policy.Settings, match ...piece) nfnl.Rule {
	return newRule(s.Chain, localComment, slices.Concat(match, []piece{addressType(unix.NFT_CMP_EQ, "local"), counter(), giveBack()})...)
}

// keepRule looks into one of the sets of destinations.
func keepRule(s policy.Settings, f policy.Family, set string) nfnl.Rule {
	return newRule(s.Chain, keepComment, inSet(f, "daddr", set), counter(), giveBack())
}

// countOn lets a rule that looks into another set of destinations count on from the rule that it replaces.
func countOn(r nfnl.Rule, former []nfnl.Rule) nfnl.Rule {
	if r.Comment != keepComment {
		return r
	}
	f, _ := familyOf(r)
	for _, now := range former {
		if of, ok := familyOf(now); !ok || of != f || now.Comment != keepComment {
			continue
		}
		r.Exprs = slices.Clone(r.Exprs)
		for i, e := range r.Exprs {
			if nfnl.ExprName(e) == "counter" {
				r.Exprs[i] = nfnl.CountOn(nfnl.Counted(now))
			}
		}
	}
	return r
}

// portProtocols are those whose source port masquerading can choose.
var portProtocols = []struct {
	name   string
	number byte
}{{"tcp", unix.IPPROTO_TCP}, {"udp", unix.IPPROTO_UDP}, {"sctp", unix.IPPROTO_SCTP}}

// masqueradeRules masquerade whatever comes to them. With port ranges each protocol chooses among them at random, in
// proportion to their sizes, and protocols without ports fall through to the last rule.
func masqueradeRules(s policy.Settings) []nfnl.Rule {
	var rules []nfnl.Rule
	for _, protocol := range portProtocols {
		remaining := s.ToPorts.Size()
		for _, ports := range s.ToPorts {
			rules = append(rules, newRule(s.Chain, masqueradeComment,
				l4proto(protocol.name, protocol.number), share(ports.Size(), remaining), counter(), masquerade(s.RandomFully, ports)))
			remaining -= ports.Size()
		}
	}
	return append(rules, lastRule(s))
}

// lastRule ends the shared chain whatever the destinations are.
func lastRule(s policy.Settings) nfnl.Rule {
	return newRule(s.Chain, masqueradeComment, counter(), masquerade(s.RandomFully, policy.PortRange{}))
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
	protocol, offset, size := "ip", map[string]uint32{"saddr": 12, "daddr": 16}, uint32(4)
	if f == policy.IPv6 {
		protocol, offset, size = "ip6", map[string]uint32{"saddr": 8, "daddr": 24}, 16
	}
	p := isFamily(f)
	p.text = fmt.Sprintf("%s %s @%s", protocol, field, set)
	p.exprs = append(p.exprs, nfnl.LoadNetwork(offset[field], size), nfnl.LookUp(set))
	return p
}

// addressType compares the type of the destination address with local, as iptables' addrtype match does.
func addressType(operation uint32, text string) piece {
	local := binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)
	return part("fib daddr type "+text, nfnl.LoadDestinationType(), nfnl.Compare(operation, local))
}

func l4proto(name string, number byte) piece {
	return part("meta l4proto "+name, nfnl.LoadMeta(unix.NFT_META_L4PROTO), nfnl.Compare(unix.NFT_CMP_EQ, []byte{number}))
}

// share matches size out of remaining packets.
func share(size, remaining int) piece {
	if size >= remaining {
		return piece{}
	}
	limit := binary.BigEndian.AppendUint32(nil, uint32(size))
	return part(fmt.Sprintf("numgen random mod %d < %d", remaining, size),
		nfnl.LoadRandom(uint32(remaining)), nfnl.ToNetworkOrder(), nfnl.Compare(unix.NFT_CMP_LT, limit))
}

func counter() piece { return part("counter", nfnl.Count()) }

func giveBack() piece { return part("return", nfnl.Return()) }

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
