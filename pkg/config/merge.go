package config

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// merged is a configuration in effect, and where its parts come from.
type merged struct {
	config           Config
	keep, exceptions list           // as the files give them
	defaults         []netip.Prefix // those in force beside keep
	interfaces       patterns
	groups           []group          // of egress, in the order of their numbers
	deciding         map[string]place // the keys of settings that no flag wins over
	overruled        map[string]place // those that one does
}

// merge puts the files together and the defaults in place: lists are joined in the files' order, switches are on if one
// file turns them on, of several intervals and limits the smallest counts, and what is one of several words has to be the same.
func merge(files []file, opts Options, r *report) merged {
	c := Config{ResyncInterval: shortest(files)}
	m := merged{interfaces: joinInterfaces(files), groups: joinEgress(files)}
	var lists, exceptionLists []list
	for _, f := range files {
		c.Files = append(c.Files, f.name)
		c.MasqLinkLocal = c.MasqLinkLocal || f.masqLinkLocal
		c.MasqLinkLocalIPv6 = c.MasqLinkLocalIPv6 || f.masqLinkLocalIPv6
		lists = append(lists, f.nonMasquerade)
		exceptionLists = append(exceptionLists, f.masquerade)
	}
	m.keep, m.exceptions = join(lists), join(exceptionLists)
	m.defaults = defaultsBeside(m.keep, opts)
	checkLimit(m.keep, lowest(files), r)
	m.checkLists(r)
	checkLinkLocal(m.otherItems(), c, r)
	if len(m.groups) > policy.MaxEgress {
		r.errorf(m.groups[policy.MaxEgress].at, "%s has %d items: put destinations with the same %s together, so that there are at most %d",
			keyEgress, len(m.groups), keySourceAddresses, policy.MaxEgress)
	}
	if !r.failed() { // a bad item may be the one that would put a default out of force
		m.checkDefaults(r)
	}
	c.NonMasquerade = append(prefixes(m.keep), m.defaults...)
	c.Masquerade = prefixes(m.exceptions)
	c.OutputInterfaces = m.interfaces.policy()
	for _, g := range m.groups {
		c.Egress = append(c.Egress, g.policy())
	}
	c.Settings, m.deciding, m.overruled = settings(files, opts, r)
	c.Flags = append([]string{}, opts.Given...)
	c.origins = &m
	m.config = c
	return m
}

// otherItems are the prefixes that do not keep the pod's address: exceptions, and the destinations of egress.
func (m merged) otherItems() []item {
	all := slices.Clone(m.exceptions.items)
	for _, g := range m.groups {
		all = append(all, g.destinations.items...)
	}
	return all
}

// shortest returns the shortest interval that a file gives.
func shortest(files []file) time.Duration {
	var interval time.Duration
	for _, f := range files {
		if f.resyncInterval > 0 && (interval == 0 || f.resyncInterval < interval) {
			interval = f.resyncInterval
		}
	}
	return cmp.Or(interval, DefaultResyncInterval)
}

// lowest returns the lowest limit that a file gives, or nil.
func lowest(files []file) *setting[int] {
	var most *setting[int]
	for _, f := range files {
		if f.cidrLimit != nil && (most == nil || f.cidrLimit.value < most.value) {
			most = f.cidrLimit
		}
	}
	return most
}

// join makes one list of several, without duplicates. A single list stays as it is.
func join(lists []list) list {
	if len(lists) == 1 {
		return lists[0]
	}
	var joined list
	seen := map[netip.Prefix]bool{}
	for _, l := range lists {
		joined.given = joined.given || l.given
		joined.size += l.size - len(l.items)
		for _, it := range l.items {
			if !seen[it.prefix] {
				seen[it.prefix] = true
				joined.items = append(joined.items, it)
			}
		}
	}
	joined.size += len(joined.items)
	return joined
}

func prefixes(l list) []netip.Prefix {
	all := make([]netip.Prefix, len(l.items))
	for i, it := range l.items {
		all[i] = it.prefix
	}
	return all
}

// defaultsBeside lists the defaults in force: those of the families that the list has no prefix of. An empty list that was
// written down is meant as such.
func defaultsBeside(l list, opts Options) []netip.Prefix {
	if l.given && l.size == 0 {
		return nil
	}
	listed := map[policy.Family]bool{}
	for _, it := range l.items {
		listed[policy.FamilyOf(it.prefix.Addr())] = true
	}
	var defaults []netip.Prefix
	for _, f := range opts.families() {
		if listed[f] {
			continue
		}
		defaults = append(defaults, policy.DefaultNonMasquerade(f)...)
		if f == policy.IPv4 && opts.AllReserved {
			defaults = append(defaults, policy.ReservedRanges()...)
		}
	}
	return defaults
}

func checkLimit(l list, most *setting[int], r *report) {
	if most != nil && l.size > most.value {
		r.errorf(most.at, "%s has %d items, more than %s %d allows: raise the limit or shorten the list",
			keyNonMasquerade, l.size, keyCIDRLimit, most.value)
	}
}

// checkLists refuses a prefix in two lists: no verdict would be the more specific one.
func (m merged) checkLists(r *report) {
	if len(m.otherItems()) == 0 {
		return
	}
	places := make(map[netip.Prefix]place, len(m.keep.items))
	check := func(l list) {
		for _, it := range l.items {
			if other, both := places[it.prefix]; both {
				r.errorf(it.at, "CIDR %q is in %s and in %s (%s): remove one of the two", it.prefix, it.at.key, other.key, other.seenFrom(it.at))
			}
		}
		for _, it := range l.items {
			places[it.prefix] = it.at
		}
	}
	check(m.keep)
	check(m.exceptions)
	for _, g := range m.groups {
		check(g.destinations)
	}
}

// checkDefaults is checkLists for those prefixes that the user did not write.
func (m merged) checkDefaults(r *report) {
	inForce := make(map[netip.Prefix]bool, len(m.defaults))
	for _, prefix := range m.defaults {
		inForce[prefix] = true
	}
	for _, it := range m.otherItems() {
		if !inForce[it.prefix] {
			continue
		}
		family := policy.FamilyOf(it.prefix.Addr())
		advice := ""
		if !m.keep.given {
			advice = ", or [] for none"
		}
		r.errorf(it.at, "CIDR %q is in %s and in the defaults of %s, which are in force because that key lists no %s range: "+
			"list there the %s ranges that keep the pod's address%s",
			it.prefix, it.at.key, keyNonMasquerade, family, family, advice)
	}
}

// checkLinkLocal refuses to masquerade the very range that the policy keeps unless its switch is on.
func checkLinkLocal(items []item, c Config, r *report) {
	for _, it := range items {
		key, on := keyMasqLinkLocal, c.MasqLinkLocal
		family := policy.FamilyOf(it.prefix.Addr())
		if family == policy.IPv6 {
			key, on = keyMasqLinkLocalIPv6, c.MasqLinkLocalIPv6
		}
		if on || it.prefix != family.LinkLocal() {
			continue
		}
		instead := "instead"
		if it.at.key != keyMasquerade {
			instead = "as well"
		}
		r.errorf(it.at, `CIDR %q in %s is the link-local range: write "%s: true" %s`, it.prefix, it.at.key, key, instead)
	}
}
