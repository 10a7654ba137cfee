package node

import (
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
)

// refusalsFile names the refused annotations that were counted, so that those of a pod count once, whether the agent was up when the
// pod came or not.
const refusalsFile = "refused.json"

// refusals are what is in the file, and what a look at the records needs not read again.
type refusals struct {
	loaded    bool
	counted   map[attachment.ID]string // the annotations, with commas in between
	optOutsAt time.Time
	optOuts   []attachment.Attachment
}

// refusalsDocument is the content of the file.
type refusalsDocument struct {
	Version int                      `json:"version"`
	Counted map[attachment.ID]string `json:"counted"`
}

// NewRefusals returns the attachments on record with annotations that are refused and that no earlier call returned, be it another
// process's. It is the agent's.
func (n *Node) NewRefusals() (fresh []attachment.Attachment, err error) {
	if !n.refusals.loaded {
		n.refusals.loaded, n.refusals.counted = true, n.loadRefusals()
	}
	records, _ := n.Records() // what cannot be read is in the log
	now := map[attachment.ID]string{}
	for _, all := range [][]attachment.Attachment{records, n.optOutsNow()} {
		for _, a := range all {
			if len(a.Refused) == 0 {
				continue
			}
			names := strings.Join(a.Refused, ",")
			if n.refusals.counted[a.ID()] != names {
				fresh = append(fresh, a)
			}
			now[a.ID()] = names
		}
	}
	if maps.Equal(now, n.refusals.counted) {
		return fresh, nil
	}
	n.refusals.counted = now
	return fresh, n.saveRefusals()
}

// optOutsNow reads the records of pods that opted out where their directory changed.
func (n *Node) optOutsNow() []attachment.Attachment {
	at := changed(n.optOuts.Dir)
	if !at.Equal(n.refusals.optOutsAt) || time.Since(at) < attachment.RacyTime {
		n.refusals.optOutsAt = at
		n.refusals.optOuts, _ = n.optOuts.List()
	}
	return n.refusals.optOuts
}

func (n *Node) refusalsPath() string { return filepath.Join(n.stateDir, refusalsFile) }

// loadRefusals takes a file that cannot be used for none: what is counted twice is better than what is not.
func (n *Node) loadRefusals() map[attachment.ID]string {
	var document refusalsDocument
	if !readList(n.refusalsPath(), &document, &document.Version) {
		return nil
	}
	return document.Counted
}

func (n *Node) saveRefusals() error {
	counted := n.refusals.counted
	if err := writeList(n.refusalsPath(), refusalsDocument{attachment.FormatVersion, counted}, len(counted) == 0); err != nil {
		return fmt.Errorf("keep the list of counted refusals: %w", err)
	}
	return nil
}
