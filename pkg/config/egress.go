package config

import (
	"fmt"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// group is an item of egress as a file gives it.
type group struct {
	at                    place
	destinations, sources list
	missing               policy.WhenMissing
}

// policy is what the group means.
func (g group) policy() policy.Egress {
	return policy.Egress{Destinations: prefixes(g.destinations), SourceAddresses: prefixes(g.sources), WhenMissing: g.missing}
}

// egress reads the groups. One with a mistake is reported and left out.
func (d decoder) egress(e entry, value any) []group {
	values, ok := value.([]any)
	if !ok {
		d.errorf(e.key, e.value.at, "%s is %s: write a list of mappings, each with %s and %s", e.key, describe(value), keyDestinations, keySourceAddresses)
		return nil
	}
	var groups []group
	for i, value := range values {
		first := len(d.report.findings)
		g := d.group(fmt.Sprintf("%s[%d]", e.key, i), e.value.item(i), value)
		if !d.report.failedSince(first) {
			groups = append(groups, g)
		}
	}
	return groups
}

// group reads one item.
func (d decoder) group(name string, at spot, value any) group {
	g := group{at: d.place(name, at.at)}
	values, ok := value.(map[string]any)
	if !ok {
		d.errorf(name, at.at, "%s is %s: write a mapping with %s and %s", name, describe(value), keyDestinations, keySourceAddresses)
		return g
	}
	keys := d.checkKeys(name, at.keys, egressKeys)
	read := func(key, meaning string) list {
		e, given := keys[key]
		if !given {
			d.errorf(name, at.at, "%s has no %s: add the prefixes of %s", name, key, meaning)
			return list{}
		}
		if items, isList := values[key].([]any); values[key] == nil || isList && len(items) == 0 {
			d.errorf(e.key, e.at, "%s is empty: write the prefixes of %s, or remove the item of %s", e.key, meaning, keyEgress)
			return list{}
		}
		return d.list(e, values[key])
	}
	g.destinations = read(keyDestinations, "the destinations")
	g.sources = read(keySourceAddresses, "the node's addresses that they should see")
	if e, given := keys[keyWhenMissing]; given {
		g.missing = d.whenMissing(e, values[keyWhenMissing])
	}
	d.checkFamilies(name, g)
	d.checkSources(g)
	return g
}

func (d decoder) whenMissing(e entry, value any) policy.WhenMissing {
	text, _ := value.(string)
	missing := policy.WhenMissing(text)
	if missing != policy.MissingMasquerade && missing != policy.MissingDrop {
		d.errorf(e.key, e.value.at, "%s is %s: write %s, or %s", e.key, describe(value), policy.MissingMasquerade, policy.MissingDrop)
	}
	return missing
}

// checkFamilies refuses a destination that no source address can be of the family of: a node could never have one for it.
func (d decoder) checkFamilies(name string, g group) {
	if len(g.sources.items) < g.sources.size || g.sources.size == 0 {
		return // a bad one may be the one that is missed
	}
	for _, it := range g.destinations.items {
		family := policy.FamilyOf(it.prefix.Addr())
		if !g.sources.has(family) {
			d.report.errorf(it.at, "%s is %s, and %s.%s has no %s prefix: add one, or remove the destination", it.prefix, family, name, keySourceAddresses, family)
		}
	}
}

// checkSources refuses addresses from which nothing can be sent to another host.
func (d decoder) checkSources(g group) {
	for _, it := range g.sources.items {
		addr := it.prefix.Addr()
		if multicast := policy.FamilyOf(addr).Multicast(); it.prefix.Bits() >= multicast.Bits() && multicast.Contains(addr) || addr.IsLoopback() {
			d.report.errorf(it.at, "%s is no range of source addresses that other hosts can answer to: write a range of the node's own addresses", it.prefix)
		}
	}
}

// has reports whether the list has a prefix of a family.
func (l list) has(f policy.Family) bool {
	return slices.ContainsFunc(l.items, func(it item) bool { return policy.FamilyOf(it.prefix.Addr()) == f })
}

// joinEgress makes one list of several. A group that a second file repeats to the letter is the same one.
func joinEgress(files []file) []group {
	var joined []group
	for _, f := range files {
		for _, g := range f.egress {
			same := func(other group) bool { return other.at.file != g.at.file && other.policy().Equal(g.policy()) }
			if !slices.ContainsFunc(joined, same) {
				joined = append(joined, g)
			}
		}
	}
	return joined
}
