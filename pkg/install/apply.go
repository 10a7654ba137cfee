package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/atomicfile"
)

// stagedChange is a change on its way: everything that it needs is on disk, under names that no runtime loads.
type stagedChange struct {
	*change
	file *atomicfile.Staged
	link *atomicfile.Staged // the same symlink once more
}

// stage prepares the change. An edit behind a symlink is no event in the directory that the runtime watches, and containerd
// ignores the creation of files; it sees the link renamed over itself. The link is staged first: after a kill between edit and
// rename, the next run's sweep of the staged link is an event too. The directory of the file behind it is swept here, under the
// lock of whoever installs.
func (c *change) stage() (*stagedChange, error) {
	s := &stagedChange{change: c}
	if c.drop || c.isNothing() {
		return s, nil
	}
	var err error
	if c.isLink() {
		atomicfile.Sweep(filepath.Dir(c.real))
		if s.link, err = atomicfile.StageLink(c.path); err != nil {
			return nil, err
		}
	}
	if s.file, err = atomicfile.Stage(c.place(), c.after, like(c.network)); err != nil {
		s.discard()
		return nil, err
	}
	return s, nil
}

// stagedPlan is a plan on its way: all of it is staged before the first part is committed.
type stagedPlan []*stagedChange

func (p plan) stage() (staged stagedPlan, err error) {
	for _, c := range p {
		s, err := c.stage()
		if err != nil {
			staged.discard()
			return nil, err
		}
		staged = append(staged, s)
	}
	return staged, nil
}

// sweep removes what a killed run left beside lists in other directories than the runtime's.
func (p plan) sweep() {
	for _, c := range p {
		atomicfile.Sweep(filepath.Dir(c.path))
	}
}

func (s stagedPlan) discard() {
	for _, c := range s {
		c.discard()
	}
}

// discard takes back what was not committed.
func (s *stagedChange) discard() {
	s.file.Discard()
	s.link.Discard()
}

// commit carries the change out. At every moment the directory has a complete network under a loadable name: while a file is
// there under both its names, they are one network.
func (s *stagedChange) commit() error {
	if s.isNothing() {
		return nil
	}
	if err := s.unchanged(); err != nil {
		return err
	}
	var err error
	switch {
	case s.drop:
	case s.to != "" && !s.over:
		if err = s.file.CommitNew(); errors.Is(err, fs.ErrExist) {
			err = fmt.Errorf("%s: %w", s.place(), errChanged)
		}
	default:
		err = s.file.Commit()
	}
	if err != nil {
		return err
	}
	if s.link != nil {
		return s.link.Commit()
	}
	if s.to == "" {
		return nil
	}
	if err := s.unchanged(); err != nil {
		return err
	}
	return atomicfile.Remove(s.path)
}

// like gives a file the owner, mode and attributes of another. Without the right to chown, a file of the installer's user still
// works.
func like(model *network) func(*os.File) error {
	return func(file *os.File) error {
		own, err := file.Stat()
		if err != nil {
			return err
		}
		want, have := model.info.Sys().(*syscall.Stat_t), own.Sys().(*syscall.Stat_t)
		if want.Uid != have.Uid || want.Gid != have.Gid {
			if err := file.Chown(int(want.Uid), int(want.Gid)); err != nil {
				return err
			}
		}
		copyAttributes(model.real, int(file.Fd()))
		return file.Chmod(model.info.Mode().Perm())
	}
}

// copyAttributes keeps labels and access lists where the file system and the rights allow it; a new file has its directory's.
func copyAttributes(from string, to int) {
	names := make([]byte, 4096)
	n, err := unix.Listxattr(from, names)
	if err != nil || n == 0 {
		return
	}
	value := make([]byte, 65536)
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if size, err := unix.Getxattr(from, name, value); err == nil {
			_ = unix.Fsetxattr(to, name, value[:size], 0)
		}
	}
}
