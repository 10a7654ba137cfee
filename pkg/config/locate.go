package config

import (
	"net/netip"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Location is where a part of the policy comes from. Of a default, and of what a flag says, no line has it: then File is empty.
type Location struct {
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
	Key  string `json:"key,omitempty"` // such as masqueradeCIDRs, or egress[0].destinations
}

func location(at place) Location { return Location{at.file, at.line, at.key} }

// Locate finds a prefix of the policy: in a list, in the destinations of egress, or among the defaults. It is false where the
// configuration has no such prefix.
func (c Config) Locate(prefix netip.Prefix) (Location, bool) {
	m := c.origins
	if m == nil {
		return Location{}, false
	}
	for _, items := range [][]item{m.keep.items, m.otherItems()} {
		for _, it := range items {
			if it.prefix == prefix {
				return location(it.at), true
			}
		}
	}
	for _, p := range m.defaults {
		if p == prefix {
			return Location{Key: keyNonMasquerade}, true
		}
	}
	switch {
	case prefix == policy.IPv4.LinkLocal() && !c.MasqLinkLocal:
		return Location{Key: keyMasqLinkLocal}, true
	case prefix == policy.IPv6.LinkLocal() && !c.MasqLinkLocalIPv6:
		return Location{Key: keyMasqLinkLocalIPv6}, true
	}
	return Location{}, false
}

// Locations are the places of all prefixes that files have, for who asks about many.
func (c Config) Locations() map[netip.Prefix]Location {
	if c.origins == nil {
		return nil
	}
	all := map[netip.Prefix]Location{}
	for _, items := range [][]item{c.origins.keep.items, c.origins.otherItems()} {
		for _, it := range items {
			if _, twice := all[it.prefix]; !twice {
				all[it.prefix] = location(it.at)
			}
		}
	}
	return all
}

// LocateKey finds the key that decides a setting: outputInterfaces, sources, nodeTraffic, toPorts, randomFully or podAnnotations.
// It is false where a flag or a default does.
func (c Config) LocateKey(key string) (Location, bool) {
	m := c.origins
	if m == nil {
		return Location{}, false
	}
	if key == keyOutputInterfaces && len(m.interfaces.items) > 0 {
		return location(m.interfaces.at), true
	}
	at, found := m.deciding[key]
	return location(at), found
}

// LocateGroup finds an egress group by its number, which counts from 1.
func (c Config) LocateGroup(number int) (Location, bool) {
	if c.origins == nil || number < 1 || number > len(c.origins.groups) {
		return Location{}, false
	}
	return location(c.origins.groups[number-1].at), true
}
