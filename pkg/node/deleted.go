package node

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/atomicfile"
	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/plainfile"
)

// deletedDir holds a mark for each attachment whose DEL ran while the runtime's cache still named it, which it does until the
// rest of the list was deleted too: an agent that reads the cache must not bring the attachment back. A mark holds the path of
// the cache's file, and protects nothing once that is gone.
const deletedDir = "deleted"

// deletedFor is how long a mark is kept that names no file.
const deletedFor = time.Hour

func (n *Node) deletedPath(id attachment.ID) string {
	return filepath.Join(n.stateDir, deletedDir, string(id))
}

// markDeleted makes a mark where an agent could adopt the attachment: one has read a cache since this node booted, and the
// cache names it. A cache that cannot be seen from here, because the agent has it mounted elsewhere, may name what is on record.
func (n *Node) markDeleted(owner attachment.Owner, recorded bool) {
	d, _ := n.Decision()
	if d.RuntimeDir == "" || n.cacheFile == nil {
		return
	}
	file := n.cacheFile(d.RuntimeDir, owner)
	if _, err := os.Lstat(file); err != nil {
		if _, err := os.Stat(filepath.Dir(file)); err == nil || !recorded {
			return
		}
		file = ""
	}
	if err := atomicfile.Write(n.deletedPath(owner.ID()), []byte(file), 0o600); err != nil {
		n.log.Warn("could not mark an attachment as deleted: the agent may take it back until the runtime forgets it", "error", err)
	}
}

func (n *Node) unmarkDeleted(id attachment.ID) {
	if err := plainfile.Remove(n.deletedPath(id)); err != nil {
		n.log.Warn("could not remove the mark of a deleted attachment", "error", err)
	}
}

// deleted lists the attachments that have a mark.
func (n *Node) deleted() (ids []attachment.ID) {
	entries, _ := os.ReadDir(filepath.Join(n.stateDir, deletedDir))
	for _, entry := range entries {
		ids = append(ids, attachment.ID(entry.Name()))
	}
	return ids
}

// pruneDeleted removes the marks that protect nothing any more. known are the ids that the runtime knows; it is nil where the
// runtime was not asked, and then the files that the marks name are looked for.
func (n *Node) pruneDeleted(known map[attachment.ID]bool) {
	dir := filepath.Join(n.stateDir, deletedDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, entry := range entries {
		id := attachment.ID(entry.Name())
		switch {
		case known != nil && known[id]:
		case known != nil, n.markIsStale(filepath.Join(dir, entry.Name())):
			n.unmarkDeleted(id)
		}
	}
}

// pruneKnown is pruneDeleted for the agent, which may have the cache mounted elsewhere than the marks say.
func (n *Node) pruneKnown() {
	if n.runtimeKnown != nil {
		n.pruneDeleted(n.runtimeKnown)
	}
}

func (n *Node) markIsStale(path string) bool {
	file, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	if len(file) > 0 {
		_, err := os.Lstat(string(file))
		return errors.Is(err, fs.ErrNotExist)
	}
	info, err := os.Stat(path)
	return err == nil && time.Since(info.ModTime()) > deletedFor
}
