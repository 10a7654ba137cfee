package agent

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/node"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// report logs what syncs did: what changed, what was repaired, and a failure once until it becomes another or ends.
type report struct {
	log        *slog.Logger
	synced     bool // once at least
	policy     policy.Policy
	addresses  []netip.Addr   // those of the node's that the policy may give to connections
	missing    map[int]string // by egress group, what is in the log of addresses that the node lacks
	lastLogged string         // the failure that is in the log, empty while all is well
	repairs    int
}

// sync logs one sync. It reports whether that was a repair: the same policy, addresses and pods as at the last one, and yet
// something had to be written. What the persisted policy says plays no part, because other software may have changed that, too.
func (r *report) sync(result node.Result, err error, inForce policy.Policy, origin Origin, by author) (repaired bool) {
	if err != nil {
		r.failed(err)
		return false
	}
	first, recovered, newPolicy := !r.synced, r.lastLogged != "", !inForce.Equal(r.policy)
	newAddresses := !slices.Equal(result.Addresses, r.addresses)
	r.synced, r.lastLogged, r.policy, r.addresses = true, "", inForce, result.Addresses
	defer r.egress(inForce, result.Egress)
	log := r.log.With("backend", result.Backend, "pods", result.Pods)
	repaired = result.Changed && !first && !newPolicy && !newAddresses && result.Adopted == 0 && result.Dropped == 0
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
	case result.Changed && newAddresses:
		log.Info("rules changed to the node's addresses", "sourceAddresses", result.Addresses)
	case result.Changed:
		log.Info("rules changed to the new set of pods", "adopted", result.Adopted, "dropped", result.Dropped)
	case first:
		log.Info("rules found in place", "policy", origin)
	case recovered:
		log.Info("rules are in place again", "policy", origin)
	}
	return repaired
}

// egress warns once of each egress group whose addresses the node lacks, until that changes.
func (r *report) egress(inForce policy.Policy, groups []ruleset.Egress) {
	former := r.missing
	r.missing = map[int]string{}
	for _, g := range groups {
		group := inForce.Egress[g.Group-1]
		log := r.log.With("group", g.Group, "destinations", shortList(group.Destinations), "sourceAddresses", shortList(group.SourceAddresses))
		if len(g.Missing) == 0 {
			if former[g.Group] != "" {
				log.Info("the node has source addresses of an egress group again", "addresses", g.Addresses)
			}
			continue
		}
		text := fmt.Sprint(group, names(g.Missing))
		r.missing[g.Group] = text
		if text != former[g.Group] {
			log.Warn("the node has none of the source addresses of an egress group: connections to its destinations are "+group.WhenMissing.Become(), "families", names(g.Missing))
		}
	}
}

func names(families []policy.Family) (all []string) {
	for _, f := range families {
		all = append(all, f.String())
	}
	return all
}

// shortList is a list of prefixes with no more than the first few.
func shortList(prefixes []netip.Prefix) string {
	text := fmt.Sprint(prefixes[:min(len(prefixes), shownRepairs)])
	if more := len(prefixes) - shownRepairs; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
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
