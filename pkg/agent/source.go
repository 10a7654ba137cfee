package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/config"
	"github.com/ip-masq/ip-masq-cni/pkg/node"
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
	reported string

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
	now := fingerprint(s.options.Config.Path)
	if s.seen == "" || s.seen != now {
		s.err = s.read()
		s.seen = trust(s.options.Config.Path, now)
	}
	return s.policy, s.err
}

// read takes in the file.
func (s *source) read() error {
	loaded, findings, err := config.Load(s.options.Config)
	s.findings = findings
	s.report(findings, err)
	if err != nil {
		s.fallBack()
		return err
	}
	s.policy, s.interval, s.origin = loaded.Policy(s.options.Settings), loaded.ResyncInterval, OriginConfig
	if len(loaded.Sources) == 0 {
		s.origin = OriginDefaults
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
		s.log.Error("the config is bad; the last good policy stays in force", "error", err)
	}
}
