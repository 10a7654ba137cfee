package cnicache

import (
	"os"
	"path/filepath"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
)

// File names the file in which the cache in dir keeps an attachment (libcni/api.go, getCacheFilePath; every version): multus's,
// where the attachment is in that one.
func File(dir string, o attachment.Owner) string {
	name := o.Network + "-" + o.ContainerID + "-" + o.IfName
	if path := filepath.Join(dir, multusDir, "results", name); exists(path) {
		return path
	}
	return filepath.Join(Cache{Dir: dir}.resultsDir(), name)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// Place is the directory of the cache.
func (c Cache) Place() string { return c.Dir }

// Watched are the directories whose files decide what Attachments returns.
func (c Cache) Watched() []string { return append(c.Dirs(), c.ConfDir) }

// IDs are all attachments that a cache's file may be of, by its name.
func IDs(path string) (ids []attachment.ID) {
	for _, owner := range owners(filepath.Base(path)) {
		ids = append(ids, owner.ID())
	}
	return ids
}

// Attachments lists the attachments whose network names the plugin, with what network and pod ask for, and the ids of all that may
// be alive as far as the runtime knows: not those whose namespace is gone, since a runtime that loses a DEL keeps their entry, but all that
// a file may mean that cannot be read just now.
func (c Cache) Attachments() (listed []attachment.Attachment, all map[attachment.ID]bool, err error) {
	list, err := c.List()
	if err != nil {
		return nil, nil, err
	}
	all = make(map[attachment.ID]bool, len(list.Entries))
	for _, entry := range list.Entries {
		all[entry.ID()] = !entry.NetNS.Gone()
		if entry.Listed && len(entry.Addresses) > 0 {
			listed = append(listed, entry.Attachment)
		}
	}
	for _, name := range list.Unread {
		for _, owner := range owners(name) {
			all[owner.ID()] = true
		}
	}
	return listed, all, nil
}
