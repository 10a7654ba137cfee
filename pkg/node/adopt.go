package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/atomicfile"
	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
)

// Runtime is what the container runtime knows of attachments. Only the agent asks it.
type Runtime interface {
	// Stamp changes whenever Attachments might.
	Stamp() string
	// Attachments lists those that should be behind the policy, and the ids of all that the runtime knows. An error means that
	// nothing is known, which is no reason to drop anything.
	Attachments() (ours []attachment.Attachment, all map[attachment.ID]bool, err error)
}

// deletedDir holds one empty file per attachment whose DEL ran: the runtime's cache goes on naming it until the rest of the
// list was deleted too, and that must not bring it back.
const deletedDir = "deleted"

// deletedFor is how long a mark is kept where no agent compares it with the cache.
const deletedFor = 24 * time.Hour

func (n *Node) deletedPath(id attachment.ID) string {
	return filepath.Join(n.stateDir, deletedDir, string(id))
}

func (n *Node) markDeleted(id attachment.ID) {
	if err := atomicfile.Write(n.deletedPath(id), nil, 0o600); err != nil {
		n.log.Warn("could not mark an attachment as deleted", "error", err)
	}
}

func (n *Node) unmarkDeleted(id attachment.ID) {
	if err := os.Remove(n.deletedPath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.log.Warn("could not remove the mark of a deleted attachment", "error", err)
	}
}

func (n *Node) isDeleted(id attachment.ID) bool {
	_, err := os.Stat(n.deletedPath(id))
	return err == nil
}

// adopt records the pods that the runtime knows and we do not: attached before the plugin was in their conflist, or their
// record was lost. It returns the ids that the runtime knows, nil where nothing is known, and how many pods were adopted.
func (n *Node) adopt() (known map[attachment.ID]bool, adopted int) {
	if n.runtime == nil {
		return nil, 0
	}
	ours, all, err := n.runtime.Attachments()
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			n.log.Warn("cannot look for pods that are not on record", "error", err)
		}
		return nil, 0
	}
	n.forgetDeleted(all)
	for _, a := range ours {
		done, err := n.adoptOne(a)
		if err != nil {
			n.log.Warn("could not adopt a pod", "network", a.Network, "container", a.ContainerID, "error", err)
		}
		if done {
			adopted++
		}
	}
	return all, adopted
}

func (n *Node) adoptOne(a attachment.Attachment) (adopted bool, err error) {
	id := a.ID()
	_, err = n.records.Get(id)
	if err == nil || n.isDeleted(id) || a.NetNS.Path == "" || !a.NetNS.Alive() {
		return false, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		n.log.Warn("replacing an attachment record that cannot be read", "error", err)
	}
	if err := n.records.Put(a); err != nil {
		return false, fmt.Errorf("record an adopted pod: %w", err)
	}
	n.log.Info("adopted a pod", "network", a.Network, "container", a.ContainerID, "interface", a.IfName, "addresses", a.Addresses)
	return true, nil
}

// forgetDeleted drops the marks of attachments that the runtime no longer knows; with known nil, only old ones.
func (n *Node) forgetDeleted(known map[attachment.ID]bool) {
	entries, err := os.ReadDir(filepath.Join(n.stateDir, deletedDir))
	if err != nil {
		return
	}
	for _, entry := range entries {
		id := attachment.ID(entry.Name())
		info, err := entry.Info()
		old := err == nil && time.Since(info.ModTime()) > deletedFor
		if old || (known != nil && id.Valid() && !known[id]) {
			n.unmarkDeleted(id)
		}
	}
}
