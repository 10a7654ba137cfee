package conflicts

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// base is where a search starts: a chain that packets meet at a hook, and how to read the chains beside it.
type base struct {
	name     string // of the table
	chain    string
	hook     hook
	family   policy.Family
	place    string // in words
	native   string // the table where it is one of nf_tables' own
	priority int32
	// read returns the rules of one chain in their order; none for a chain that is not there.
	read func(ctx context.Context, chain string) ([]rule, error)
}

// hook is a place on a packet's way where a rule can defeat the policy.
type hook int

const (
	afterRouting   hook = iota // chains of type nat, where sources are translated
	beforeTracking             // chains ahead of connection tracking, where a packet can be kept from it
	beforeRouting              // chains of type nat, where destinations are translated; only a single packet is followed there
)

// trackingPriority is where connection tracking looks at a packet (NF_IP_PRI_CONNTRACK).
const trackingPriority = -200

// hookOf tells whether a chain matters.
func hookOf(c nfnl.Chain) (hook, bool) {
	switch {
	case c.Type == "nat" && c.Hook == unix.NF_INET_POST_ROUTING:
		return afterRouting, true
	case c.Type == "nat" && c.Hook == unix.NF_INET_PRE_ROUTING:
		return beforeRouting, true
	case c.Type == "filter" && c.Hook == unix.NF_INET_PRE_ROUTING && c.Priority < trackingPriority:
		return beforeTracking, true
	}
	return 0, false
}

// ownTable is the table of the nftables backend, in family inet.
const ownTable = "ip-masq-agent"

// xtables are the tables and chains of iptables where something can defeat the policy.
var xtables = []struct {
	table, chain string
	hook         hook
	priority     int32
}{
	{"nat", "POSTROUTING", afterRouting, 100},
	{"raw", "PREROUTING", beforeTracking, -300},
	{"nat", "PREROUTING", beforeRouting, -100},
}

// nativeChain is a base chain of nf_tables.
type nativeChain struct {
	family uint8
	nfnl.Chain
	hook hook
}

// ofIPTables reports whether iptables-nft wrote the chain.
func (c nativeChain) ofIPTables(table, chain string) bool {
	return c.family != unix.NFPROTO_INET && c.Table == table && c.Name == chain
}

// byXtables reports whether the chain is one of xtables.
func (c nativeChain) byXtables() bool {
	for _, x := range xtables {
		if c.ofIPTables(x.table, x.chain) {
			return true
		}
	}
	return false
}

// bases lists the base chains to look at: iptables' by variant, table and family, then the native ones, and to follow a
// single packet those of ip-masq's own table and those that translate destinations.
func (q Query) bases(follow bool, families ...policy.Family) ([]base, error) {
	native, err := nativeChains()
	var bases []base
	for _, kind := range []backend.Kind{backend.IPTablesNFT, backend.IPTablesLegacy} {
		for _, x := range xtables {
			if x.hook == beforeRouting && !follow {
				continue
			}
			for _, family := range families {
				// Without the chain a look at iptables-nft is not worth a process. iptables-legacy costs none where the table is unused.
				there := slices.ContainsFunc(native, func(c nativeChain) bool {
					return c.family == nativeFamily(family) && c.ofIPTables(x.table, x.chain)
				})
				if kind == backend.IPTablesLegacy || there || err != nil {
					b := xtable(q.Host, kind, family, x.table, x.chain, x.hook)
					b.priority = x.priority
					bases = append(bases, b)
				}
			}
		}
	}
	for _, c := range native {
		if c.byXtables() || !follow && (c.hook == beforeRouting || c.family == unix.NFPROTO_INET && c.Table == ownTable) {
			continue
		}
		for _, family := range families {
			if c.family == unix.NFPROTO_INET || c.family == nativeFamily(family) {
				bases = append(bases, c.base(family))
			}
		}
	}
	return bases, err
}

// nativeChains lists the base chains of nf_tables that matter. A kernel without nf_tables calls the request invalid, and has none.
func nativeChains() ([]nativeChain, error) {
	var all []nativeChain
	for _, family := range []uint8{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6, unix.NFPROTO_INET} {
		chains, err := baseChains(family)
		if errors.Is(err, unix.EINVAL) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		for _, c := range chains {
			if at, ok := hookOf(c); ok {
				all = append(all, nativeChain{family, c, at})
			}
		}
	}
	return all, nil
}

func baseChains(family uint8) ([]nfnl.Chain, error) {
	conn, err := nfnl.DialFamily(family)
	if err != nil {
		return nil, fmt.Errorf("ask for nf_tables: %w", err)
	}
	defer func() { _ = conn.Close() }()
	chains, err := conn.BaseChains()
	for range 2 {
		if errors.Is(err, nfnl.ErrInterrupted) {
			chains, err = conn.BaseChains()
		}
	}
	return chains, err
}

func nativeFamily(family policy.Family) uint8 {
	if family == policy.IPv6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

// familyName is what nft calls it.
func familyName(family uint8) string {
	return map[uint8]string{unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6"}[family]
}

func (c nativeChain) base(family policy.Family) base {
	b := base{name: c.Table, chain: c.Name, hook: c.hook, family: family, native: c.Table, priority: c.Priority}
	b.place = fmt.Sprintf("nftables table %s %s chain %s", familyName(c.family), c.Table, c.Name)
	b.read = func(_ context.Context, chain string) ([]rule, error) { return b.readNative(c.family, chain) }
	return b
}

// readNative returns the rules of one chain as packets of the family meet them; none where it is not there.
func (b base) readNative(tableFamily uint8, chain string) ([]rule, error) {
	r := nativeReader{tableFamily: tableFamily, table: b.name, family: b.family, hook: b.hook}
	rules, err := r.rules(chain)
	if err != nil {
		return nil, fmt.Errorf("read table %s %s chain %s: %w", familyName(tableFamily), b.name, chain, err)
	}
	return rules, nil
}
