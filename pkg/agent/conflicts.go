package agent

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/conflicts"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// conflictInterval is how often the daemon looks for what defeats the policy: reading other software's rules takes processes,
// and a network plugin that masquerades by itself does not come and go.
const conflictInterval = 10 * time.Minute

// conflictSearch is what a search is about.
type conflictSearch struct {
	policy      policy.Policy
	attachments []attachment.Attachment
}

// conflictReporter logs each conflict once while it lasts.
type conflictReporter struct {
	options  Options
	log      *slog.Logger
	found    func(number int) // is told how many there are
	policy   policy.Policy
	searched time.Time
	known    map[conflicts.Conflict]bool

	lastLogged string
}

// search looks at start, when the policy changed, and now and then.
func (r *conflictReporter) search(ctx context.Context, s conflictSearch) {
	if time.Since(r.searched) < conflictInterval && r.policy.Equal(s.policy) {
		return
	}
	r.searched, r.policy = time.Now(), s.policy
	searchCtx, cancel := context.WithTimeout(ctx, syncTime)
	defer cancel()
	found, err := conflicts.Find(searchCtx, conflictQuery(r.options, s.policy, s.attachments))
	if ctx.Err() != nil {
		return // the daemon ends
	}
	r.warn(err)
	now := make(map[conflicts.Conflict]bool, len(found))
	for _, c := range found {
		now[c] = true
		if !r.known[c] {
			r.log.Warn("conflicting NAT rule found", "owner", c.Owner, "where", c.Where, "rule", c.Rule, "fix", c.Fix)
		}
	}
	r.known = now
	r.found(len(now))
}

// warn logs what could not be searched, once while it lasts.
func (r *conflictReporter) warn(err error) {
	text := fmt.Sprint(err)
	if err != nil && text != r.lastLogged {
		r.log.Warn("not everything could be searched for conflicting NAT rules", "error", err)
	}
	r.lastLogged = text
}
