package attachment

import (
	"os"
	"path/filepath"

	"github.com/containernetworking/plugins/pkg/ns"
	"golang.org/x/sys/unix"
)

// NetNS is a network namespace as it was when the attachment was made. The inode tells a namespace from a later one that was
// mounted at the same path.
type NetNS struct {
	Path   string `json:"path,omitempty"`
	Device uint64 `json:"device,omitempty"`
	Inode  uint64 `json:"inode,omitempty"`
}

// StatNetNS identifies the namespace at path. An empty or unreadable path gives the path alone: nothing can be proved of it.
func StatNetNS(path string) NetNS {
	n := NetNS{Path: path}
	var st unix.Stat_t
	if path != "" && isNetNS(path) && unix.Stat(path, &st) == nil {
		n.Device, n.Inode = st.Dev, st.Ino
	}
	return n
}

// Gone reports whether the namespace is provably gone: its path is missing from a directory that is there, or another
// namespace stands at it. A plain file proves nothing, because a container that does not share the host's mounts sees one
// where a living namespace is mounted.
func (n NetNS) Gone() bool {
	if n.Path == "" {
		return false
	}
	var st unix.Stat_t
	if err := unix.Stat(n.Path, &st); err != nil {
		_, parent := os.Stat(filepath.Dir(n.Path))
		return os.IsNotExist(err) && parent == nil
	}
	same := st.Dev == n.Device && st.Ino == n.Inode
	return n.Inode != 0 && !same && isNetNS(n.Path)
}

// Alive reports whether a namespace is there, as far as can be seen from here: its path is, and nothing proves it gone.
func (n NetNS) Alive() bool {
	var st unix.Stat_t
	if unix.Stat(n.Path, &st) != nil {
		return false
	}
	return st.Dev == n.Device && st.Ino == n.Inode || !n.Gone()
}

func isNetNS(path string) bool { return ns.IsNSorErr(path) == nil }
