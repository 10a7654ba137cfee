package config

import (
	"net/netip"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Location is where a prefix of the policy comes from. Of a default, and of what a flag adds, no line has it: then File is empty.
type Location struct {
	File string
	Line int
	Key  string
}

// Locate reads the configuration again and finds a prefix of the policy in it. It is false where the configuration has no such
// prefix, as when the file changed since the policy was made of it; a bad file is an error.
func Locate(opts Options, prefix netip.Prefix) (Location, bool, error) {
	r := &report{}
	var files []file
	for _, path := range sources(opts, r) {
		if data, err := readFile(path); err != nil {
			r.system(path, "cannot be read", err)
		} else {
			files = append(files, decode(path, data, opts, r))
		}
	}
	m := merge(files, opts, r)
	if err := r.err(); err != nil {
		return Location{}, false, err
	}
	at, found := m.locate(prefix)
	return at, found, nil
}

func (m merged) locate(prefix netip.Prefix) (Location, bool) {
	for _, l := range []list{m.keep, m.exceptions} {
		for _, it := range l.items {
			if it.prefix == prefix {
				return Location{it.at.file, it.at.line, it.at.key}, true
			}
		}
	}
	for _, p := range m.defaults {
		if p == prefix {
			return Location{Key: keyNonMasquerade}, true
		}
	}
	switch {
	case prefix == policy.IPv4.LinkLocal() && !m.config.MasqLinkLocal:
		return Location{Key: keyMasqLinkLocal}, true
	case prefix == policy.IPv6.LinkLocal() && !m.config.MasqLinkLocalIPv6:
		return Location{Key: keyMasqLinkLocalIPv6}, true
	}
	return Location{}, false
}
