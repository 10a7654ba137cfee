package conflicts

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// native is nf_tables as the kernel tells it.
type native struct {
	tables  []*nftables.Table
	unknown bool // the kernel did not answer
}

// ownTable is the table of the nftables backend, in family inet.
const ownTable = "ip-masq-agent"

// nativeTables lists the tables, by name only. A kernel without nf_tables calls the request invalid, and has none.
func nativeTables() (native, error) {
	conn, err := nftables.New()
	if err != nil {
		return native{unknown: true}, fmt.Errorf("ask for nf_tables: %w", err)
	}
	tables, err := conn.ListTables()
	if errors.Is(err, unix.EINVAL) {
		return native{}, nil
	}
	if err != nil {
		return native{unknown: true}, fmt.Errorf("list the tables of nf_tables: %w", err)
	}
	return native{tables: tables}, nil
}

// hasNAT reports whether iptables-nft may have rules. Without the table a look at it is not worth a process.
func (n native) hasNAT(family policy.Family) bool {
	wanted := nftTable(family, natTable)
	return n.unknown || slices.ContainsFunc(n.tables, func(t *nftables.Table) bool {
		return t.Family == wanted.Family && t.Name == wanted.Name
	})
}

// hookedChain is a native chain that packets meet after routing.
type hookedChain struct {
	table *nftables.Table
	chain string
}

// landmarks are the tables that may hold thousands of chains, with the only one in them that matters. In iptables' own table
// it is the one that manuals of nft tell people to add; that of iptables is read otherwise.
var landmarks = map[string]string{
	natTable:     "postrouting",
	"kube-proxy": "nat-postrouting",
}

// skipped are tables in which no address is translated: those of iptables-nft, in the families of IP.
var skipped = []string{"filter", "mangle", "raw", "security"}

// hooked lists the chains of type nat that packets meet after routing, but ours. The kernel lists chains only by family, so
// this is not asked of a family in which there is nobody but those whose chains are known.
func (n native) hooked() ([]hookedChain, error) {
	var found []hookedChain
	var errs []error
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6, nftables.TableFamilyINet} {
		known, others := n.split(family)
		for _, t := range known {
			found = append(found, landmark(t)...)
		}
		if !others {
			continue
		}
		listed, err := hookedIn(family)
		found = append(found, listed...)
		errs = append(errs, err)
	}
	return found, errors.Join(errs...)
}

// split sorts the tables of a family: those with a landmark, and whether there are others.
func (n native) split(family nftables.TableFamily) (known []*nftables.Table, others bool) {
	for _, t := range n.tables {
		switch {
		case t.Family != family || settled(t):
		case landmarks[t.Name] != "":
			known = append(known, t)
		default:
			others = true
		}
	}
	return known, others
}

func settled(t *nftables.Table) bool {
	if t.Family == nftables.TableFamilyINet {
		return t.Name == ownTable
	}
	return slices.Contains(skipped, t.Name)
}

func landmark(t *nftables.Table) []hookedChain {
	conn, err := nftables.New()
	if err != nil {
		return nil
	}
	c, err := conn.ListChain(t, landmarks[t.Name])
	if err != nil || !afterRouting(c) {
		return nil // the library does not tell "not there" from other errors
	}
	return []hookedChain{{t, c.Name}}
}

func hookedIn(family nftables.TableFamily) ([]hookedChain, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("ask for nf_tables: %w", err)
	}
	chains, err := conn.ListChainsOfTableFamily(family)
	if err != nil {
		return nil, fmt.Errorf("list the chains of nf_tables: %w", err)
	}
	var found []hookedChain
	for _, c := range chains {
		if afterRouting(c) && !settled(c.Table) && landmarks[c.Table.Name] == "" {
			found = append(found, hookedChain{c.Table, c.Name})
		}
	}
	return found, nil
}

func afterRouting(c *nftables.Chain) bool {
	return c.Type == nftables.ChainTypeNAT && c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookPostrouting
}

// speaks reports whether packets of the family meet the chain.
func (h hookedChain) speaks(family policy.Family) bool {
	of := familyOf(h.table)
	return of == 0 || of == family
}

func (h hookedChain) of(family policy.Family) table {
	return table{
		name: h.table.Name, chain: h.chain, family: family,
		read: func(_ context.Context, chain string) ([]rule, error) { return readNative(h.table, chain) },
	}
}

// readNative returns the rules of one chain; none where it is not there.
func readNative(t *nftables.Table, chain string) ([]rule, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("ask for nf_tables: %w", err)
	}
	listed, err := conn.GetRules(t, &nftables.Chain{Name: chain})
	if err != nil {
		return nil, fmt.Errorf("read table %s chain %s: %w", t.Name, chain, err)
	}
	rules := make([]rule, len(listed))
	for i, r := range listed {
		rules[i] = fromExpressions(t, r)
		rules[i].where = fmt.Sprintf("nftables table %s %s chain %s handle %d", familyName(t), t.Name, chain, r.Handle)
	}
	return rules, nil
}

// familyOf is 0 for a table of both families.
func familyOf(t *nftables.Table) policy.Family {
	switch t.Family {
	case nftables.TableFamilyIPv4:
		return policy.IPv4
	case nftables.TableFamilyIPv6:
		return policy.IPv6
	}
	return 0
}

func familyName(t *nftables.Table) string {
	return map[policy.Family]string{0: "inet", policy.IPv4: "ip", policy.IPv6: "ip6"}[familyOf(t)]
}

func nftTable(family policy.Family, name string) *nftables.Table {
	if family == policy.IPv6 {
		return &nftables.Table{Name: name, Family: nftables.TableFamilyIPv6}
	}
	return &nftables.Table{Name: name, Family: nftables.TableFamilyIPv4}
}
