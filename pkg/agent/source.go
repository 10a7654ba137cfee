package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/config"
	"github.com/ip-masq/ip-masq-cni/pkg/fingerprint"
	"github.com/ip-masq/ip-masq-cni/pkg/node"
	"github.com/ip-masq/ip-masq-cni/pkg/paths"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Origin says where the policy in force came from.
type Origin string

// The origins, from the best to the last resort.
const (
	OriginConfig    Origin = "config file"
	OriginDefaults  Origin = "defaults, because there is no config file"
	OriginLastGood  Origin = "last good config, because the present one is bad"
	OriginPersisted Origin = "persisted policy, because the config is bad"
	OriginFallback  Origin = "defaults, because the config is bad and no policy was persisted"
	OriginElsewhere Origin = "persisted policy, because there is no config file here"
)

// source turns the configuration file into the policy in force. A bad file never stops it: the last good policy stays, at
// first start the persisted one, and without that the defaults.
type source struct {
	options Options
	node    *node.Node
	log     *slog.Logger

	policy   policy.Policy
	origin   Origin
	interval time.Duration
	hash     string    // of the files, when they were last good
	loaded   time.Time // when they were last good
	reported string

	// persistedFirst is for commands: where there is no file at the default path, the daemon may have had one in another place,
	// such as its container's, and its policy counts more than the defaults.
	persistedFirst bool

	seen     string // fingerprint of the file when it was last read, empty when it may have changed since unnoticed
	findings []config.Finding
	err      error
}

func newSource(o Options, n *node.Node, log *slog.Logger) *source {
	return &source{options: o, node: n, log: log, interval: config.DefaultResyncInterval}
}

// load returns the policy in force. The error says what is wrong with the file, beside that policy. A file that is the same as
// the last time is not read again.
func (s *source) load() (policy.Policy, error) {
	path := s.options.Config.Path
	now := configFingerprint(path)
	if s.seen == "" || s.seen != now {
		s.err = s.read()
		s.seen = now
		if fingerprint.Fresh(path) {
			s.seen = ""
		}
	}
	return s.policy, s.err
}

// read takes in the file.
func (s *source) read() error {
	loaded, findings, err := config.Load(s.options.Config)
	s.findings = findings
	if err != nil {
		s.fallBack()
	}
	s.report(findings, err)
	if err != nil {
		return err
	}
	s.policy, s.interval, s.origin = loaded.Policy(s.options.Settings), loaded.ResyncInterval, OriginConfig
	s.hash, s.loaded = loaded.Hash, time.Now()
	if len(loaded.Sources) > 0 {
		return nil
	}
	s.origin = OriginDefaults
	if persisted, err := s.node.LoadPolicy(); err == nil && s.persistedFirst && s.options.Config.Path == paths.ConfigFile {
		s.policy, s.origin = under(s.options.Settings, persisted), OriginElsewhere
	}
	return nil
}

// fallBack decides what is in force while the file is bad. The flags are this agent's own, also for a persisted policy.
func (s *source) fallBack() {
	switch s.origin {
	case OriginConfig, OriginDefaults:
		s.origin = OriginLastGood
	case "":
		persisted, err := s.node.LoadPolicy()
		if err == nil {
			s.policy, s.origin = under(s.options.Settings, persisted), OriginPersisted
			return
		}
		if !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("cannot use the persisted policy", "error", err)
		}
		s.policy, s.origin = policy.Default(s.options.Settings), OriginFallback
	}
}

// under puts a persisted policy under the present flags. Where they switch IPv6 on that was off, it gets the IPv6 default:
// without one, pods would lose their address even to each other.
func under(now policy.Settings, persisted policy.Policy) policy.Policy {
	if now.IPv6 && !persisted.Settings.IPv6 {
		persisted.NonMasquerade = append(persisted.NonMasquerade, policy.DefaultNonMasquerade(policy.IPv6)...)
	}
	persisted.Settings = now
	return persisted
}

// report logs what is wrong with the file once per change, not once per minute.
func (s *source) report(findings []config.Finding, err error) {
	text := fmt.Sprint(findings, err)
	if text == s.reported {
		return
	}
	s.reported = text
	for _, finding := range findings {
		if finding.Severity == config.Warning {
			s.log.Warn("config", "finding", finding.String())
		}
	}
	if err != nil {
		s.log.Error("the config is bad", "inForce", s.origin, "error", err)
	}
}

// commandSource is the source of a command beside the daemon or in its place: every flag that is not given has the value that was
// persisted, so that the command judges and changes the node by the daemon's flags.
func (p Program) commandSource(o Options, n *node.Node) *source {
	persisted, err := n.LoadPolicy()
	switch {
	case err == nil:
		o = o.withPersisted(persisted)
	case !errors.Is(err, fs.ErrNotExist):
		_, _ = fmt.Fprintf(p.Stderr, "ip-masq-agent: flags that are not given have their defaults: %v\n", err)
	}
	s := newSource(o, n, discard())
	s.persistedFirst = true
	return s
}

// withPersisted takes the persisted settings for every flag that is not given.
func (o Options) withPersisted(persisted policy.Policy) Options {
	now, former := &o.Settings, persisted.Settings
	for name, take := range map[string]func(){
		"masq-chain":   func() { now.Chain = former.Chain },
		"sources":      func() { now.Sources = former.Sources },
		"enable-ipv6":  func() { now.IPv6 = former.IPv6 },
		"random-fully": func() { now.RandomFully = former.RandomFully },
		"to-ports":     func() { now.ToPorts = former.ToPorts },
		// No setting, but it shows in the policy.
		"nomasq-all-reserved-ranges": func() { o.Config.AllReserved = hasAll(persisted.NonMasquerade, policy.ReservedRanges()) },
	} {
		if !o.Given(name) {
			take()
		}
	}
	o.Config.EnableIPv6 = o.Settings.IPv6
	return o
}

func hasAll(prefixes, wanted []netip.Prefix) bool {
	return !slices.ContainsFunc(wanted, func(p netip.Prefix) bool { return !slices.Contains(prefixes, p) })
}
