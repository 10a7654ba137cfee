package attachment

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// NetNS is a network namespace as it was when the attachment was made. The inode tells a namespace from a later one that was
// mounted at the same path.
type NetNS struct {
	Path   string `json:"path,omitempty"`
	Device uint64 `json:"device,omitempty"`
	Inode  uint64 `json:"inode,omitempty"`
}

// nsfsMagic is the file system type of a namespace's file (linux/magic.h).
const nsfsMagic = 0x6e736673

// StatNetNS identifies the namespace at path. An empty or unreadable path gives the path alone: nothing can be proved of it.
func StatNetNS(path string) NetNS {
	ns := NetNS{Path: path}
	var st unix.Stat_t
	if path != "" && isNetNS(path) && unix.Stat(path, &st) == nil {
		ns.Device, ns.Inode = st.Dev, st.Ino
	}
	return ns
}

// Gone reports whether the namespace is provably gone: its path is missing from a directory that is there, or another
// namespace stands at it. A plain file proves nothing, because a container that does not share the host's mounts sees one
// where a living namespace is mounted.
func (ns NetNS) Gone() bool {
	if ns.Path == "" {
		return false
	}
	var st unix.Stat_t
	if err := unix.Stat(ns.Path, &st); err != nil {
		_, parent := os.Stat(filepath.Dir(ns.Path))
		return os.IsNotExist(err) && parent == nil
	}
	same := st.Dev == ns.Device && st.Ino == ns.Inode
	return ns.Inode != 0 && !same && isNetNS(ns.Path)
}

// Alive reports whether a namespace is there, as far as can be seen from here: its path is, and nothing proves it gone.
func (ns NetNS) Alive() bool {
	_, err := os.Stat(ns.Path)
	return err == nil && !ns.Gone()
}

func isNetNS(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && fs.Type == nsfsMagic
}
