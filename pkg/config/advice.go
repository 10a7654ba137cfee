package config

import (
	"fmt"
	"net/netip"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Range is a part of the cluster whose packets should keep their source among each other, such as a pod range.
type Range struct {
	Prefix netip.Prefix
	// Name says what it is and how that is known, such as "pod range of /etc/cni/net.d/10-bridge.conflist".
	Name string
}

// advise warns of what is accepted and most likely not what its writer means.
func (m merged) advise(opts Options, ranges []Range, r *report) {
	prefixes := m.inForce()
	m.adviseOnNonMasquerade(prefixes, r)
	m.adviseOnExceptions(prefixes, r)
	m.adviseOnEgress(prefixes, r)
	m.interfaces.advise(r)
	m.adviseOnSettings(opts, r)
	m.adviseOnIPv6(opts, r)
	for _, cluster := range ranges {
		if part, found := masqueraded(cluster.Prefix, prefixes); found {
			r.add(m.place(keyNonMasquerade), Warning, fmt.Sprintf("%s, the %s, would be masqueraded%s: add it to %s",
				cluster.Prefix, cluster.Name, partly(part, cluster.Prefix), keyNonMasquerade))
		}
	}
}

// prefixInForce is a prefix, its verdict and where it stands; the line is 0 for a default.
type prefixInForce struct {
	policy.Destination
	at place
}

// seenFrom names the prefix for a finding about another place.
func (p prefixInForce) seenFrom(other place) string {
	if p.at.line == 0 {
		return fmt.Sprintf("%s (a default)", p.Prefix)
	}
	return fmt.Sprintf("%s (%s)", p.Prefix, p.at.seenFrom(other))
}

// inForce lists every prefix once, in no particular order of importance: the most specific one decides.
func (m merged) inForce() []prefixInForce {
	var all []prefixInForce
	for _, f := range []policy.Family{policy.IPv4, policy.IPv6} {
		if f == policy.IPv4 && !m.config.MasqLinkLocal || f == policy.IPv6 && !m.config.MasqLinkLocalIPv6 {
			all = append(all, prefixInForce{policy.Destination{Prefix: f.LinkLocal(), Verdict: policy.Keep}, place{}})
		}
	}
	for _, prefix := range m.defaults {
		all = append(all, prefixInForce{policy.Destination{Prefix: prefix, Verdict: policy.Keep}, place{}})
	}
	for _, it := range m.keep.items {
		all = append(all, prefixInForce{policy.Destination{Prefix: it.prefix, Verdict: policy.Keep}, it.at})
	}
	for _, it := range m.exceptions.items {
		all = append(all, prefixInForce{policy.Destination{Prefix: it.prefix, Verdict: policy.Masquerade}, it.at})
	}
	for i, g := range m.groups {
		for _, it := range g.destinations.items {
			all = append(all, prefixInForce{policy.Destination{Prefix: it.prefix, Verdict: policy.Translate, Group: i + 1}, it.at})
		}
	}
	return all
}

func (m merged) adviseOnNonMasquerade(prefixes []prefixInForce, r *report) {
	parents := parentsOf(prefixes)
	adviseOnDuplicates(m.keep, r)
	for _, it := range m.keep.items {
		if it.prefix.Bits() == 0 {
			others := keyMasquerade
			if len(m.groups) > 0 {
				others += " and " + keyEgress
			}
			r.add(it.at, Warning, fmt.Sprintf("%s keeps the pod's address everywhere: no %s destination is masqueraded but those in %s",
				it.prefix, policy.FamilyOf(it.prefix.Addr()), others))
			continue
		}
		if parent, ok := parents.of(it.prefix); ok && parent.Verdict == policy.Keep {
			r.add(it.at, Warning, fmt.Sprintf("%s changes nothing: %s covers it; remove one of the two", it.prefix, parent.seenFrom(it.at)))
		}
	}
}

func (m merged) adviseOnExceptions(prefixes []prefixInForce, r *report) {
	parents := parentsOf(prefixes)
	adviseOnDuplicates(m.exceptions, r)
	for _, it := range m.exceptions.items {
		switch parent, ok := parents.of(it.prefix); {
		case !ok:
			r.add(it.at, Warning, fmt.Sprintf("%s has no effect: no prefix around it keeps the pod's address, so it is masqueraded anyway; remove it", it.prefix))
		case parent.Verdict == policy.Masquerade:
			r.add(it.at, Warning, fmt.Sprintf("%s changes nothing: the exception %s covers it; remove one of the two", it.prefix, parent.seenFrom(it.at)))
		}
	}
}

// adviseOnEgress warns of destinations and source addresses without effect.
func (m merged) adviseOnEgress(prefixes []prefixInForce, r *report) {
	parents := parentsOf(prefixes)
	for i, g := range m.groups {
		adviseOnDuplicates(g.destinations, r)
		adviseOnDuplicates(g.sources, r)
		for _, it := range g.destinations.items {
			family := policy.FamilyOf(it.prefix.Addr())
			if parent, ok := parents.of(it.prefix); ok && parent.Group == i+1 {
				r.add(it.at, Warning, fmt.Sprintf("%s changes nothing: %s covers it; remove one of the two", it.prefix, parent.seenFrom(it.at)))
			} else if multicast := family.Multicast(); it.prefix.Bits() >= multicast.Bits() && multicast.Contains(it.prefix.Addr()) && m.config.Settings.Sources != policy.SourcesAll {
				r.add(it.at, Warning, fmt.Sprintf("%s has no effect: what goes to multicast addresses keeps its source; remove it", it.prefix))
			}
		}
		for _, it := range g.sources.items {
			family := policy.FamilyOf(it.prefix.Addr())
			if !g.destinations.has(family) {
				r.add(it.at, Warning, fmt.Sprintf("%s has no effect: the item of %s has no %s destination; add one, or remove it", it.prefix, keyEgress, family))
				continue
			}
			for _, other := range g.sources.items {
				if other.prefix.Bits() < it.prefix.Bits() && other.prefix.Contains(it.prefix.Addr()) {
					r.add(it.at, Warning, fmt.Sprintf("%s changes nothing: %s (%s) covers it; remove one of the two", it.prefix, other.prefix, other.at.seenFrom(it.at)))
					break
				}
			}
		}
	}
}

// adviseOnSettings warns of settings of the file that have no effect, or one that is hardly meant.
func (m merged) adviseOnSettings(opts Options, r *report) {
	s := m.config.Settings
	for key, flag := range flagOf {
		if at, there := m.overruled[key]; there {
			r.add(at, Warning, fmt.Sprintf("%s has no effect: the flag --%s is given, and wins", key, flag))
		}
	}
	if at, there := m.deciding[keyPodAnnotations]; there && s.Sources == policy.SourcesAll {
		r.add(at, Warning, fmt.Sprintf("%s has no effect: with sources: all the policy does not know pods", keyPodAnnotations))
	}
	at, there := m.deciding[keyToPorts]
	if !there {
		return
	}
	for i, ports := range s.ToPorts {
		for _, other := range s.ToPorts[:i] {
			if ports.First <= other.Last && other.First <= ports.Last {
				r.add(at, Warning, fmt.Sprintf("port ranges %s and %s overlap: ports in both are chosen twice as often; write them as one", other, ports))
			}
		}
		if n := opts.NodePorts; n.Last > 0 && ports.First <= n.Last && n.First <= ports.Last {
			r.add(at, Warning, fmt.Sprintf("port range %s holds ports of Services (%s), whose connections collide with masqueraded ones: leave them out, or write %s",
				ports, n, policy.AutoPorts))
		}
	}
}

func adviseOnDuplicates(l list, r *report) {
	first := map[netip.Prefix]place{}
	for _, it := range l.items {
		if earlier, twice := first[it.prefix]; twice {
			r.add(it.at, Warning, fmt.Sprintf("%s is listed twice, first in %s: remove one of them", it.prefix, earlier.seenFrom(it.at)))
			continue
		}
		first[it.prefix] = it.at
	}
}

// adviseOnIPv6 warns where IPv6 is on and the default range alone is kept: clusters with global addresses would masquerade
// what their pods send to each other.
func (m merged) adviseOnIPv6(opts Options, r *report) {
	if !opts.EnableIPv6 || m.keep.given && m.keep.size == 0 {
		return
	}
	for _, it := range m.keep.items {
		if policy.FamilyOf(it.prefix.Addr()) == policy.IPv6 {
			return
		}
	}
	r.add(m.place(keyNonMasquerade), Warning, fmt.Sprintf("IPv6 is on and %s lists no IPv6 prefix, so only the default %s keeps the pod's address: "+
		"list the cluster's IPv6 ranges, or %s to say that these are all",
		keyNonMasquerade, policy.DefaultNonMasquerade(policy.IPv6)[0], policy.DefaultNonMasquerade(policy.IPv6)[0]))
}

// place is where a remark about a whole list belongs: its first item, or the first file.
func (m merged) place(key string) place {
	at := place{key: key}
	if len(m.config.Files) > 0 {
		at.file = m.config.Files[0]
	}
	if key == keyNonMasquerade && len(m.keep.items) > 0 {
		at = m.keep.items[0].at
	}
	return at
}

// parents finds the prefix around another one.
type parents map[netip.Prefix]prefixInForce

func parentsOf(prefixes []prefixInForce) parents {
	p := make(parents, len(prefixes))
	for _, prefix := range prefixes {
		if _, there := p[prefix.Prefix]; !there {
			p[prefix.Prefix] = prefix
		}
	}
	return p
}

// of returns the most specific prefix that contains another one and is not equal to it.
func (p parents) of(inner netip.Prefix) (prefixInForce, bool) {
	for bits := inner.Bits() - 1; bits >= 0; bits-- {
		outer, err := inner.Addr().Prefix(bits)
		if found, ok := p[outer]; err == nil && ok {
			return found, true
		}
	}
	return prefixInForce{}, false
}

// masqueraded returns a part of a range that the prefixes masquerade, if there is one. A range with prefixes inside is looked
// at half by half.
func masqueraded(r netip.Prefix, prefixes []prefixInForce) (netip.Prefix, bool) {
	verdict, longest := policy.Masquerade, -1
	var inside []prefixInForce
	for _, p := range prefixes {
		switch {
		case !p.Prefix.Overlaps(r):
		case p.Prefix.Bits() > r.Bits():
			inside = append(inside, p)
		case p.Prefix.Bits() > longest:
			verdict, longest = p.Verdict, p.Prefix.Bits()
		}
	}
	if len(inside) == 0 {
		return r, verdict != policy.Keep
	}
	around := prefixInForce{policy.Destination{Prefix: r, Verdict: verdict}, place{}}
	for _, half := range halves(r) {
		if part, found := masqueraded(half, append(inside, around)); found {
			return part, true
		}
	}
	return netip.Prefix{}, false
}

func halves(r netip.Prefix) [2]netip.Prefix {
	bits := r.Bits() + 1
	raw := r.Masked().Addr().AsSlice()
	raw[(bits-1)/8] |= 0x80 >> ((bits - 1) % 8)
	upper, _ := netip.AddrFromSlice(raw)
	return [2]netip.Prefix{netip.PrefixFrom(r.Masked().Addr(), bits), netip.PrefixFrom(upper, bits)}
}

// partly names the part where it is not the whole range.
func partly(part, whole netip.Prefix) string {
	if part == whole {
		return ""
	}
	return fmt.Sprintf(" in part (%s)", part)
}
