package node

import (
	"errors"
	"fmt"
	"io/fs"

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

// adopt records the pods that the runtime knows and that are not on record: attached before the plugin was in their conflist,
// or their record was lost. It returns the ids that the runtime knows, nil where nothing is known, and for how many pods rules change.
func (n *Node) adopt(s policy.Settings) (known map[attachment.ID]bool, adopted int) {
	if n.runtime == nil {
		return nil, 0
	}
	attachments, known, err := n.runtime.Attachments()
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			n.log.Warn("cannot look for pods that are not on record", "error", err)
		}
		return nil, 0
	}
	for _, a := range attachments {
		done, err := n.adoptOne(s, a)
		if err != nil {
			n.log.Warn("could not adopt a pod", "network", a.Network, "container", a.ContainerID, "error", err)
		}
		if done {
			adopted++
		}
	}
	return known, adopted
}

func (n *Node) adoptOne(s policy.Settings, a attachment.Attachment) (adopted bool, err error) {
	if !n.adoptable(a) {
		return false, nil
	}
	a, optedOut, _ := a.Decide(s.PodAnnotations) // the plugin refuses what is in the error, so it was not in the pod's list
	if optedOut {
		a.Addresses = pods(a.Addresses)
		return ruleset.NeedsOptedOut(s), n.optOuts.Put(a)
	}
	a = n.governed(a)
	if len(a.Addresses) == 0 {
		return false, nil
	}
	if a.Bypass = n.bypassing(a); a.Bypass != "" {
		n.log.Warn("no rule for this attachment: "+attachment.Bypassing(a.Bypass), "network", a.Network, "container", a.ContainerID, "interface", a.IfName)
		return ruleset.NeedsOptedOut(s), n.optOuts.Put(a)
	}
	n.forgetRecords()
	if err := n.records.Put(a); err != nil {
		return false, fmt.Errorf("record an adopted pod: %w", err)
	}
	n.log.Info("adopted a pod", "network", a.Network, "container", a.ContainerID, "interface", a.IfName, "addresses", a.Addresses)
	return true, nil
}

// OnRecord reports whether an attachment has a record, readable or not, be it as one that opted out.
func (n *Node) OnRecord(id attachment.ID) bool { return n.records.Has(id) || n.optOuts.Has(id) }

// RecordsDir is the directory of the records, and OptOutsDir that of the records of pods that get no rule.
func (n *Node) RecordsDir() string { return n.records.Dir }

// OptOutsDir is RecordsDir's sibling.
func (n *Node) OptOutsDir() string { return n.optOuts.Dir }
