package agent

import (
	"fmt"
	"log/slog"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/node"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// report logs what syncs did: what changed, what was repaired, and a failure once until it becomes another or ends.
type report struct {
	log        *slog.Logger
	synced     bool // once at least
	policy     policy.Policy
	lastLogged string // the failure that is in the log, empty while all is well
	repairs    int
}

// sync logs one sync. It reports whether that was a repair: the same policy and the same pods as at the last one, and yet
// something had to be written. What the persisted policy says plays no part, because other software may have changed that, too.
func (r *report) sync(result node.Result, err error, inForce policy.Policy, origin Origin, by author) (repaired bool) {
	if err != nil {
		r.failed(err)
		return false
	}
	first, recovered, newPolicy := !r.synced, r.lastLogged != "", !inForce.Equal(r.policy)
	r.synced, r.lastLogged, r.policy = true, "", inForce
	log := r.log.With("backend", result.Backend, "pods", result.Pods)
	repaired = result.Changed && !first && !newPolicy && result.Adopted == 0 && result.Dropped == 0
	switch {
	case repaired:
		r.repairs++
		if by.name != "" {
			log = log.With("by", by.name)
		}
		log.Info("rules repaired after an external change", "restored", shortened(result.Repaired), "repairs", r.repairs)
	case result.Changed && first:
		log.Info("rules put in place", "policy", origin)
	case result.Changed && newPolicy:
		log.Info("rules changed to the new policy", "policy", origin)
	case result.Changed:
		log.Info("rules changed to the new set of pods", "adopted", result.Adopted, "dropped", result.Dropped)
	case first:
		log.Info("rules found in place", "policy", origin)
	case recovered:
		log.Info("rules are in place again", "policy", origin)
	}
	return repaired
}

func (r *report) failed(err error) {
	if text := err.Error(); text != r.lastLogged {
		r.lastLogged = text
		r.log.Error("the rules could not be put in place; trying again", "error", err)
	}
}

// shownRepairs bounds what one line of the log says of a repair: status lists more.
const shownRepairs = 5

func shortened(objects []backend.Drift) []string {
	var lines []string
	for i, d := range objects {
		if i == shownRepairs {
			return append(lines, fmt.Sprintf("and %d more", len(objects)-i))
		}
		lines = append(lines, d.String())
	}
	return lines
}
