package nftables

import (
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// With egress groups a destination is looked up once, in a map of ranges that leads to the chain of a group, or to the chain of
// what keeps its address; what is in no range falls to the rules that masquerade.
//
// A group's chain is called by the prefixes of its source addresses, and not by its number: with a new policy destinations move
// to other chains, but no chain gets another meaning, so that every packet in between meets the old verdict or the new one,
// although elements and rules do not change in the same instant. Names have a slash, which no shared chain's has.

// chainPrefix begins the names of the chains that a family's map leads to.
func chainPrefix(f policy.Family) string { return fmt.Sprintf("egress%d/", uint8(f)) }

// keepChain counts what keeps its address.
func keepChain(f policy.Family) string { return chainPrefix(f) + "keep" }

// longestName is the length from which on a name is made of a hash; nft takes 127 characters.
const longestName = 100

// groupName is what is in the names of a group's chain and of its pool.
func groupName(g ruleset.Group) string {
	parts := make([]string, 0, len(g.Sources)+1)
	for _, p := range g.Sources {
		parts = append(parts, strings.ReplaceAll(p.String(), ":", "_"))
	}
	if g.Missing == policy.Drop {
		parts = append(parts, "drop")
	}
	name := strings.Join(parts, "/")
	if len(name) > longestName {
		sum := fnv.New128a()
		_, _ = sum.Write([]byte(name))
		name = hex.EncodeToString(sum.Sum(nil))
	}
	if name == "" {
		return "none"
	}
	return name
}

func groupChain(f policy.Family, g ruleset.Group) string { return chainPrefix(f) + groupName(g) }

// poolMap is called by the addresses in it as well: other addresses fill another map, to which the rule is moved. While elements of
// one map are exchanged, a packet in the midst of looking one up can find none, and would leave with the pod's own address.
func poolMap(f policy.Family, g ruleset.Group) string {
	sum := fnv.New32a()
	for _, a := range g.Addresses {
		_, _ = sum.Write(a.AsSlice())
	}
	return fmt.Sprintf("%s%s/%08x", poolPrefix(f), groupName(g), sum.Sum32())
}

// chainFamily tells the family of a chain that a map leads to.
func chainFamily(name string) (policy.Family, bool) {
	for _, f := range families {
		if strings.HasPrefix(name, chainPrefix(f)) {
			return f, true
		}
	}
	return 0, false
}

// goToChain is the value by which a map leads to a chain.
func goToChain(name string) string { return "goto " + name }

// values says for each destination what the map has for it; nothing where it is masqueraded.
func values(table ruleset.Table) func(policy.Destination) string {
	groups := map[int]string{}
	for _, g := range table.Groups {
		groups[g.Number] = goToChain(groupChain(table.Family, g))
	}
	keep := goToChain(keepChain(table.Family))
	return func(d policy.Destination) string {
		switch d.Verdict {
		case policy.Keep:
			return keep
		case policy.Translate:
			return groups[d.Group]
		}
		return ""
	}
}

// groupChains are the chains that the map of a family leads to.
func groupChains(s policy.Settings, table ruleset.Table, sources bool) []chain {
	f := table.Family
	named := func(name string, rules ...nfnl.Rule) chain {
		return chain{Chain: nfnl.Chain{Table: tableName, Name: name}, rules: rules}
	}
	chains := []chain{named(keepChain(f), newRule(keepChain(f), keepComment, isFamily(f), counter(), giveBack()))}
	seen := map[string]bool{}
	for _, g := range table.Groups {
		if name := groupChain(f, g); !seen[name] { // groups with the same addresses share a chain
			seen[name] = true
			chains = append(chains, named(name, groupRules(s, f, g, sources)...))
		}
	}
	return chains
}

// groupRules are those of a group's chain. What is bound for the node itself keeps its address here as well, and the address that a
// pod chose goes before the group's.
func groupRules(s policy.Settings, f policy.Family, g ruleset.Group, sources bool) []nfnl.Rule {
	name := groupChain(f, g)
	rules := []nfnl.Rule{newRule(name, localComment, isFamily(f), addressType(unix.NFT_CMP_EQ, "local"), counter(), giveBack())}
	if sources {
		rules = append(rules, sourcesRules(name, s, f)...)
	}
	switch {
	case len(g.Addresses) == 1:
		return append(rules, translateRules(s, name, groupComment(g), isFamily(f), loadAddress(g.Addresses[0]), f)...)
	case len(g.Addresses) > 1:
		return append(rules, translateRules(s, name, groupComment(g), isFamily(f), fromPool(f, g), f)...)
	case g.Missing == policy.Drop:
		return append(rules, newRule(name, dropComment, isFamily(f), counter(), drop()))
	}
	return append(rules, portRules(s, name, masqueradeComment, []piece{isFamily(f)}, func(ports policy.PortRange) piece {
		return masquerade(s.RandomFully, ports)
	})...)
}

// groupComment names the prefixes, as far as they fit.
func groupComment(g ruleset.Group) string {
	texts := make([]string, len(g.Sources))
	for i, p := range g.Sources {
		texts[i] = p.String()
	}
	comment := egressComment + strings.Join(texts, ", ")
	return comment[:min(len(comment), nfnl.MaxComment)]
}

// poolsOf are the maps of those groups that have more than one address here.
func poolsOf(table ruleset.Table) (pools []set) {
	seen := map[string]bool{}
	for _, g := range table.Groups {
		name := poolMap(table.Family, g)
		if len(g.Addresses) < 2 || seen[name] {
			continue
		}
		seen[name] = true
		pool := set{Set: setOf(name, table.Family)}
		for bucket := range policy.Buckets(len(g.Addresses)) {
			key := lastBits(table.Family, byte(bucket))
			pool.members = append(pool.members, member{first: key, last: key, value: policy.Choose(g.Addresses, key).String()})
		}
		pools = append(pools, pool)
	}
	return pools
}

// lastBits is the address that has nothing but some of its last bits.
func lastBits(f policy.Family, bits byte) netip.Addr {
	bytes := make([]byte, f.Bits()/8)
	bytes[len(bytes)-1] = bits
	address, _ := netip.AddrFromSlice(bytes)
	return address
}

// source is where a rule that translates takes the address from.
type source struct {
	text string // behind "to"
	load [][]byte
}

func loadAddress(a netip.Addr) source { return source{a.String(), [][]byte{nfnl.LoadAddress(a)}} }

// fromPool picks one of a group's addresses by the last bits of the packet's source, as policy.Choose does.
func fromPool(f policy.Family, g ruleset.Group) source {
	return bitsOf(f, lastBits(f, byte(policy.Buckets(len(g.Addresses))-1)).AsSlice(), poolMap(f, g))
}

// bitsOf looks up those bits of the packet's source that are set in mask.
func bitsOf(f policy.Family, mask []byte, pool string) source {
	text, _ := netip.AddrFromSlice(mask)
	return source{
		fmt.Sprintf("%s saddr & %s map @%s", protocolOf(f), text, pool),
		[][]byte{loadSource(f), nfnl.Mask(mask), nfnl.LookUpValue(pool)},
	}
}

// translateRules give what comes to them an address of a source.
func translateRules(s policy.Settings, chain, comment string, match piece, from source, f policy.Family) []nfnl.Rule {
	return portRules(s, chain, comment, []piece{match}, func(ports policy.PortRange) piece {
		return translate(f, from, s.RandomFully, ports)
	})
}

// sourcesRules translate what comes from a pod that chose an address; what comes from others goes on behind them. The count is
// behind the look-up, where it counts those alone.
func sourcesRules(chain string, s policy.Settings, f policy.Family) []nfnl.Rule {
	lookUp := part("", loadSource(f), nfnl.LookUpValue(sourcesMap(f)))
	from := source{text: fmt.Sprintf("%s saddr map @%s", protocolOf(f), sourcesMap(f))}
	var rules []nfnl.Rule
	forPorts(s.ToPorts, func(match []piece, ports policy.PortRange) {
		pieces := slices.Concat([]piece{isFamily(f)}, match, []piece{lookUp, counter(), translate(f, from, s.RandomFully, ports)})
		rules = append(rules, newRule(chain, sourcesComment, pieces...))
	})
	return rules
}

// translate takes an address of a source, and a port out of ports unless that is empty.
func translate(f policy.Family, from source, randomFully bool, ports policy.PortRange) piece {
	text, flags, number := from.text, uint32(0), byte(unix.NFPROTO_IPV4)
	if f == policy.IPv6 {
		number = unix.NFPROTO_IPV6
	}
	if ports != (policy.PortRange{}) {
		if f == policy.IPv6 && !strings.Contains(text, " ") {
			text = "[" + text + "]"
		}
		text += ":" + ports.String()
	}
	if randomFully {
		text, flags = text+" fully-random", unix.NF_NAT_RANGE_PROTO_RANDOM_FULLY
	}
	exprs := slices.Concat(from.load, nfnl.TranslateSource(number, flags, ports.First, ports.Last))
	return part(fmt.Sprintf("snat %s to %s", protocolOf(f), text), exprs...)
}
