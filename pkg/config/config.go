// Package config turns the agent's configuration file into the effective masquerade lists.
//
// The file is the Kubernetes ip-masq-agent's, YAML or JSON, read strictly: a misspelt key, a CIDR with host bits or a key
// without a value is an error that names the place and the fix, because every one of them used to become a silently
// different policy. All errors of a file are reported at once.
//
// The package refuses to do more than that. It never touches the kernel, never watches the file, and never falls back by
// itself: where a file is bad it returns no Config at all. Keeping the last good policy is the agent's job.
package config

import (
	"net/netip"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// DefaultResyncInterval is in force when no file gives resyncInterval; MinResyncInterval is the shortest one accepted.
const (
	DefaultResyncInterval = time.Minute
	MinResyncInterval     = 100 * time.Millisecond
)

// Options say where the configuration is and how to read it.
type Options struct {
	// Path is a file, or a directory when AllowDir is set.
	Path string
	// AllowDir merges a directory's `ip-masq*` files. It is for a --config that was given explicitly.
	AllowDir bool
	// Required makes a missing file an error, as it is for a path that somebody named.
	Required bool
	// EnableIPv6 is --enable-ipv6: IPv6 prefixes are accepted and the IPv6 default is in force.
	EnableIPv6 bool
	// AllReserved is --nomasq-all-reserved-ranges: where the IPv4 defaults are in force, the reserved ranges join them.
	AllReserved bool
	// Lenient is --strict-config=false: keys that are unknown, in another letter case or given twice are only warned of.
	Lenient bool
	// Settings are those of the flags and their defaults. The file's keys win over them, but for flags that were given.
	Settings policy.Settings
	// Given names those of SettingFlags that were given.
	Given []string
	// NodePorts are the ports of Services, for advice; the zero value gives none.
	NodePorts policy.PortRange
}

// families lists the families that are on.
func (o Options) families() []policy.Family {
	return policy.Settings{IPv6: o.EnableIPv6}.Families()
}

// Config is a configuration in effect: the lists have the defaults in place, per family, and hold only families that are on.
type Config struct {
	NonMasquerade     []netip.Prefix
	Masquerade        []netip.Prefix
	MasqLinkLocal     bool
	MasqLinkLocalIPv6 bool
	ResyncInterval    time.Duration
	OutputInterfaces  policy.Interfaces
	Egress            []policy.Egress
	// Settings are those in effect: of the flags that were given, of the file, or the defaults. With AutoPorts the agent has to
	// choose the ports, which depend on the node.
	Settings policy.Settings
	Flags    []string // as in policy.Policy
	// Files are those that the configuration came from, none where there is no file and all is default.
	Files []string
	// Hash is the SHA-256 of what Load read, in hexadecimal: sha256sum of the file, or of a directory's files joined in their order.
	Hash string

	origins *merged // where all of it comes from
}

// Default is the configuration in effect where there is no file.
func Default(opts Options) Config {
	return merge(nil, opts, &report{}).config
}

// Policy is the configuration as a policy.
func (c Config) Policy() policy.Policy {
	return policy.Policy{
		Settings:          c.Settings,
		NonMasquerade:     c.NonMasquerade,
		Masquerade:        c.Masquerade,
		MasqLinkLocal:     c.MasqLinkLocal,
		MasqLinkLocalIPv6: c.MasqLinkLocalIPv6,
		OutputInterfaces:  c.OutputInterfaces,
		Egress:            c.Egress,
		Flags:             c.Flags,
	}
}

// Parse reads the bytes of one file. The name is only for the findings; opts.Path and opts.AllowDir play no part.
//
// The findings are all errors and warnings in the file's order. With at least one error among them the Config is empty and
// the error is an *InvalidError.
func Parse(name string, data []byte, opts Options) (Config, []Finding, error) {
	r := &report{}
	return conclude([]file{decode(name, data, opts, r)}, opts, r)
}

// conclude merges what the files gave, unless one of them is bad.
func conclude(files []file, opts Options, r *report) (Config, []Finding, error) {
	m := merge(files, opts, r)
	if err := r.err(); err != nil {
		return Config{}, r.findings, err
	}
	return m.config, r.findings, nil
}
