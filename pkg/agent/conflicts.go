package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/conflicts"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// conflictInterval is how often the daemon looks for what defeats the policy: reading other people's rules takes processes, and
// a network plugin that masquerades on its own does not come and go.
const conflictInterval = 10 * time.Minute

// sentry logs each conflict once while it lasts.
type sentry struct {
	options Options
	log     *slog.Logger
	policy  policy.Policy
	looked  time.Time
	known   map[conflicts.Conflict]bool
}

// look runs at start, when the policy changed, and now and then.
func (s *sentry) look(ctx context.Context, p policy.Policy, records func() ([]attachment.Attachment, error)) {
	if time.Since(s.looked) < conflictInterval && s.policy.Equal(p) {
		return
	}
	s.looked, s.policy = time.Now(), p
	attachments, _ := records()
	found, err := conflicts.Find(ctx, conflictQuery(s.options, p, attachments))
	if err != nil {
		s.log.Debug("could not look everywhere for conflicting rules", "error", err)
	}
	now := make(map[conflicts.Conflict]bool, len(found))
	for _, c := range found {
		now[c] = true
		if !s.known[c] {
			s.log.Warn("something else decides about pods' addresses", "owner", c.Owner, "where", c.Where, "rule", c.Rule, "fix", c.Fix)
		}
	}
	s.known = now
}

func conflictQuery(o Options, p policy.Policy, attachments []attachment.Attachment) conflicts.Query {
	var sources []netip.Addr
	for _, a := range attachments {
		sources = append(sources, a.Addresses...)
	}
	return conflicts.Query{Host: o.HostRoot, Policy: p, Sources: sources, ConfDir: o.Cache.ConfDir}
}
