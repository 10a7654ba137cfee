package node

import (
	"errors"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// Runtime is what the container runtime knows of attachments. Only the agent asks it.
type Runtime interface {
	// Place is the directory in which the runtime keeps what it knows.
	Place() string
	// Stamp changes whenever Attachments might.
	Stamp() string
	// Attachments lists those whose network names the plugin, with what pod and network ask for, and the ids of all that the
	// runtime knows. An error means that nothing is known, which is no reason to drop anything.
	Attachments() (listed []attachment.Attachment, all map[attachment.ID]bool, err error)
}

// adopted are pods that the runtime knows and that were not on record: attached before the plugin was in their conflist, or their
// record was lost.
type adopted struct {
	pods     []attachment.Attachment // that get rules, and a record once those stand
	optedOut int                     // pods that have a record now by which rules change
}

// adopt finds them. It returns them with the ids that the runtime knows, nil where nothing is known.
//
// From here on they are among the Records, and on disk after their rules: the pods wait for these. What is killed in between leaves
// rules that name their owner, whom the next agent finds in the runtime's cache again; where the pod is gone by then, its rules
// are like those whose record was lost (living). Nobody else comes in between, because the lock is held.
func (n *Node) adopt(s policy.Settings) (known map[attachment.ID]bool, found adopted) {
	if n.runtime == nil {
		return nil, found
	}
	attachments, known, err := n.runtime.Attachments()
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			n.log.Warn("cannot look for pods that are not on record", "error", err)
		}
		return nil, found
	}
	decided, r := n.decidedOn(), askRoutes()
	defer r.close()
	for _, a := range attachments {
		if !decided.adoptable(a) {
			continue
		}
		decided[a.ID()] = true
		if err := n.adoptOne(s, r, a, &found); err != nil {
			n.log.Warn("could not adopt a pod", "network", a.Network, "container", a.ContainerID, "error", err)
		}
	}
	if len(found.pods) > 0 {
		records, err := n.Records()
		n.assumed = &assumedRecords{byID(slices.Concat(records, found.pods)), err}
	}
	return known, found
}

// byID brings attachments into the order in which records are listed.
func byID(all []attachment.Attachment) []attachment.Attachment {
	sorted := make(map[attachment.ID]attachment.Attachment, len(all))
	for _, a := range all {
		sorted[a.ID()] = a
	}
	for i, id := range slices.Sorted(maps.Keys(sorted)) {
		all[i] = sorted[id]
	}
	return all[:len(sorted)]
}

func (n *Node) adoptOne(s policy.Settings, r *routes, a attachment.Attachment, found *adopted) error {
	putOptOut := func() error {
		if ruleset.NeedsOptedOut(s) {
			found.optedOut++
		}
		return n.optOuts.Put(a)
	}
	a, optedOut, _ := a.Decide(s.PodAnnotations) // the plugin refuses what is in the error, so it was not in the pod's list
	if optedOut {
		a.Addresses = r.pods(a.Addresses)
		return putOptOut()
	}
	a = n.governed(r, a)
	if len(a.Addresses) == 0 {
		return nil
	}
	if a.Bypass = n.bypassing(r, a); a.Bypass != "" {
		n.log.Warn("no rule for this attachment: "+attachment.Bypassing(a.Bypass), "network", a.Network, "container", a.ContainerID, "interface", a.IfName)
		return putOptOut()
	}
	found.pods = append(found.pods, a)
	return nil
}

// record writes the records of adopted pods, and returns for how many pods rules changed. A pod whose record cannot be written keeps
// its rules, and is adopted again.
func (n *Node) record(found adopted) (changed int) {
	if n.assumed == nil {
		return found.optedOut
	}
	n.known = recordList{valid: n.assumed.err == nil, at: time.Now(), records: n.assumed.records}
	n.assumed = nil
	for _, a := range found.pods {
		if err := n.records.Put(a); err != nil {
			n.forgetRecords()
			n.log.Warn("could not record an adopted pod, whose rules are not affected", "network", a.Network, "container", a.ContainerID, "error", err)
			continue
		}
		n.log.Info("adopted a pod", "network", a.Network, "container", a.ContainerID, "interface", a.IfName, "addresses", a.Addresses)
		changed++
	}
	return changed + found.optedOut
}

// OnRecord reports whether an attachment has a record, readable or not, be it as one that opted out.
func (n *Node) OnRecord(id attachment.ID) bool { return n.records.Has(id) || n.optOuts.Has(id) }

// RecordsDir is the directory of the records, and OptOutsDir that of the records of pods that get no rule.
func (n *Node) RecordsDir() string { return n.records.Dir }

// OptOutsDir is RecordsDir's sibling.
func (n *Node) OptOutsDir() string { return n.optOuts.Dir }
