package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
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
	OriginPartial   Origin = "the good files of the config, and of the bad ones the last good content"
	OriginPersisted Origin = "persisted policy, because the config is bad"
	OriginFallback  Origin = "defaults, because the config is bad and no policy was persisted"
	OriginElsewhere Origin = "persisted policy, because there is no config file here"
)

// source turns the configuration file into the policy in force. A bad file never stops it: the last good policy stays, at
// first start the persisted one, and without that the defaults.
type source struct {
	options Options
	loader  *config.Loader
	node    *node.Node
	log     *slog.Logger

	config   config.Config // that the policy was made of; the zero value where it is a persisted one
	policy   policy.Policy
	origin   Origin
	interval time.Duration
	hash     string    // of the files, when they were last good
	loaded   time.Time // when they were last good
	reported string

	// persistedFirst is for commands: where there is no file at the default path, the daemon may have had one in another place,
	// such as its container's, and its policy counts more than the defaults.
	persistedFirst bool

	ports autoPorts

	seen     string // fingerprint of the file when it was last read, empty when it may have changed since unnoticed
	findings []config.Finding
	err      error
}

func newSource(o Options, n *node.Node, log *slog.Logger) *source {
	return &source{
		options: o, loader: config.NewLoader(o.Config), node: n, log: log, interval: config.DefaultResyncInterval,
		ports: autoPorts{nodePorts: o.Config.NodePorts, log: log},
	}
}

// load returns the policy in force. The error says what is wrong with the file, or with the ports that it wants, beside that
// policy. A file that is the same as the last time is not read again; the node's ports are.
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
	inForce, err := s.policy, s.err
	if inForce.Settings.AutoPorts {
		var portsErr error
		inForce.Settings.ToPorts, portsErr = s.ports.choose(s.node)
		err = errors.Join(err, portsErr)
	}
	return inForce, err
}

// clearOf names the ports that the chosen ones keep clear of, empty where none are chosen.
func (s *source) clearOf() string {
	if !s.policy.Settings.AutoPorts || s.ports.taken.Local.Last == 0 {
		return ""
	}
	return s.ports.taken.String()
}

// read takes in the file.
func (s *source) read() error {
	loaded, err := s.loader.Load()
	s.findings = loaded.Findings
	if err != nil {
		s.fallBack(loaded)
		s.report(loaded.Findings, err)
		return err
	}
	s.report(loaded.Findings, nil)
	s.take(loaded.Config, OriginConfig)
	s.hash, s.loaded = loaded.Config.Hash, time.Now()
	if len(loaded.Config.Files) > 0 {
		return nil
	}
	s.origin = OriginDefaults
	if persisted, err := s.node.LoadPolicy(); err == nil && s.persistedFirst && s.options.Config.Path == paths.ConfigFile {
		s.takePersisted(persisted, OriginElsewhere)
	}
	return nil
}

// take puts a configuration in force.
func (s *source) take(c config.Config, origin Origin) {
	s.config, s.policy, s.interval, s.origin = c, c.Policy(), c.ResyncInterval, origin
}

// takePersisted puts a persisted policy in force, under this agent's own flags.
func (s *source) takePersisted(persisted policy.Policy, origin Origin) {
	s.config, s.policy, s.origin = config.Config{}, under(s.options.Config, persisted), origin
}

// fallBack decides what is in force while the configuration is bad. At the start it is the persisted policy, until all is good;
// later what holds in spite of the errors, and where nothing does, what was in force before.
func (s *source) fallBack(loaded config.Loaded) {
	if s.origin == "" {
		persisted, err := s.node.LoadPolicy()
		if err == nil {
			s.takePersisted(persisted, OriginPersisted)
			return
		}
		if !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("cannot use the persisted policy", "error", err)
		}
	}
	info, err := os.Stat(s.options.Config.Path)
	switch {
	case s.origin == OriginPersisted, s.origin == OriginElsewhere:
	case loaded.Usable && len(loaded.Config.Files) > 0 && err == nil && info.IsDir():
		s.take(loaded.Config, OriginPartial)
	case s.origin == "", s.origin == OriginFallback:
		s.take(config.Default(s.options.Config), OriginFallback)
	case loaded.Usable:
		s.take(loaded.Config, OriginLastGood)
	default:
		s.origin = OriginLastGood
	}
}

// under puts a persisted policy under the present flags. Where they switch IPv6 on that was off, it gets the IPv6 default:
// without one, pods would lose their address even to each other.
func under(now config.Options, persisted policy.Policy) policy.Policy {
	if now.EnableIPv6 && !persisted.Settings.IPv6 {
		persisted.NonMasquerade = append(persisted.NonMasquerade, policy.DefaultNonMasquerade(policy.IPv6)...)
	}
	s := now.Settings
	fromFile := func(flag string) bool { // nil: older agents had no such keys
		return persisted.Flags != nil && !slices.Contains(now.Given, flag) && !slices.Contains(persisted.Flags, flag)
	}
	if fromFile("sources") {
		s.Sources = persisted.Settings.Sources
	}
	if fromFile("random-fully") {
		s.RandomFully = persisted.Settings.RandomFully
	}
	if fromFile("to-ports") {
		s.ToPorts, s.AutoPorts = persisted.Settings.ToPorts, persisted.Settings.AutoPorts
	}
	s.NodeTraffic, s.PodAnnotations = persisted.Settings.NodeTraffic && s.Sources == policy.SourcesPods, persisted.Settings.PodAnnotations
	persisted.Settings, persisted.Flags = s, append([]string{}, now.Given...)
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

// withPersisted takes the persisted settings for every flag that is not given. Of those that win over keys, it takes the ones that
// the daemon was given: for the others the file decides.
func (o Options) withPersisted(persisted policy.Policy) Options {
	now, former := &o.Settings, persisted.Settings
	given := slices.Clone(o.Config.Given)
	for name, take := range map[string]func(){
		"masq-chain":   func() { now.Chain = former.Chain },
		"sources":      func() { now.Sources = former.Sources },
		"enable-ipv6":  func() { now.IPv6 = former.IPv6 },
		"random-fully": func() { now.RandomFully = former.RandomFully },
		"to-ports":     func() { now.ToPorts, now.AutoPorts = former.ToPorts, former.AutoPorts },
		// No setting, but it shows in the policy.
		"nomasq-all-reserved-ranges": func() { o.Config.AllReserved = hasAll(persisted.NonMasquerade, policy.ReservedRanges()) },
		"service-node-port-range": func() {
			if now.NodePorts = former.NodePorts; now.NodePorts.Last > 0 {
				o.Config.NodePorts = now.NodePorts
			}
		},
	} {
		byKey := slices.Contains(config.SettingFlags(), name)
		switch {
		case o.Given(name):
		case byKey && persisted.Flags != nil && !slices.Contains(persisted.Flags, name): // nil: older agents had no such keys
		default:
			take()
			if byKey {
				given = append(given, name)
			}
		}
	}
	slices.Sort(given)
	o.Config.EnableIPv6, o.Config.Settings, o.Config.Given = o.Settings.IPv6, o.Settings, given
	return o
}

func hasAll(prefixes, wanted []netip.Prefix) bool {
	return !slices.ContainsFunc(wanted, func(p netip.Prefix) bool { return !slices.Contains(prefixes, p) })
}
