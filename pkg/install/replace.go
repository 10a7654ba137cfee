package install

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// tempPrefix begins the names of our temporary files. Their end is no extension that a runtime loads, and as all of them
// begin with it, what a kill left behind can be told and swept.
const tempPrefix = ".ip-masq-installer.tmp-"

// staged is a complete file on disk, one rename away from its place.
type staged struct {
	temp, path string
}

// stage writes a file beside its place and syncs it. All that can go wrong for want of room or right goes wrong here, where
// nothing has changed yet.
func stage(path string, content io.Reader, adjust func(*os.File) error) (*staged, error) {
	temp, err := os.CreateTemp(filepath.Dir(path), tempPrefix)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	s := &staged{temp: temp.Name(), path: path}
	_, err = io.Copy(temp, content)
	if err == nil {
		err = adjust(temp)
	}
	if err == nil {
		err = temp.Sync()
	}
	if closeErr := temp.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		s.discard()
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return s, nil
}

// discard takes back what was not committed. After commit it does nothing.
func (s *staged) discard() {
	if s != nil {
		_ = os.Remove(s.temp)
	}
}

// commit replaces whatever is at the place, in one step that survives a power loss.
func (s *staged) commit() error {
	if err := os.Rename(s.temp, s.path); err != nil {
		return fmt.Errorf("replace %s: %w", s.path, err)
	}
	return syncDir(filepath.Dir(s.path))
}

// commitNew is commit for a place where nothing is, and errLost where somebody was faster.
func (s *staged) commitNew() error {
	err := unix.Renameat2(unix.AT_FDCWD, s.temp, unix.AT_FDCWD, s.path, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS): // not on every file system
		if _, err := os.Lstat(s.path); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s: %w", s.path, errLost)
		}
		return s.commit()
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("%s: %w", s.path, errLost)
	case err != nil:
		return fmt.Errorf("create %s: %w", s.path, err)
	}
	return syncDir(filepath.Dir(s.path))
}

// unlink removes a file for good. One that is gone already is no error.
func unlink(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer func() { _ = d.Close() }()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}

// like gives a file the owner, mode and attributes of another. Without the right to chown, a file of our own still works.
func like(model *confFile) func(*os.File) error {
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

// copyAttributes keeps labels and access lists where the file system and our rights let us; a new file has its directory's.
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

// sweep removes what a killed run left in a directory. The caller holds its lock, so none is in use.
func sweep(dir string) {
	files, _ := os.ReadDir(dir)
	for _, file := range files {
		if strings.HasPrefix(file.Name(), tempPrefix) {
			_ = os.Remove(filepath.Join(dir, file.Name()))
		}
	}
}
