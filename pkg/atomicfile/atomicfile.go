// Package atomicfile replaces files in one step: a reader sees the old content or the new, a full disk loses nothing, and a
// kill leaves at most a temporary file, whose name starts with a dot and ends in no extension that any program loads.
//
// It refuses to edit in place and to follow a policy of its own about which file is right.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/plainfile"
)

// TempPrefix begins the names of all temporary files, so that Sweep can tell them from other programs'.
const TempPrefix = ".ip-masq.tmp-"

// formerTempPrefix is the installer's of version 0.1.0.
const formerTempPrefix = ".ip-masq-installer.tmp-"

// Write replaces the file at path. The directory is made when missing. Nothing is synced: what must survive a power loss
// goes through WriteSync.
func Write(path string, data []byte, mode os.FileMode) error {
	return write(path, data, mode, func(*os.File) error { return nil }, func(string) error { return nil })
}

// WriteSync is Write for files that must survive a power loss: the content is on disk before the name is, and the name when
// it returns.
func WriteSync(path string, data []byte, mode os.FileMode) error {
	return write(path, data, mode, (*os.File).Sync, syncDir)
}

func write(path string, data []byte, mode os.FileMode, sync func(*os.File) error, syncDir func(string) error) error {
	finish := func(f *os.File) error { return errors.Join(f.Chmod(mode), sync(f)) }
	s, err := stage(path, data, finish)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("make directory for %s: %w", path, err)
		}
		s, err = stage(path, data, finish)
	}
	if err != nil {
		return err
	}
	defer s.Discard()
	if err := s.rename(); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// Staged is a complete file on disk, one rename away from its place.
type Staged struct {
	Temp   string // where it is
	path   string
	placed bool // it is there no more
}

// Stage writes a file beside its place and syncs it; adjust sets mode, owner and the like. All that can go wrong for want of
// room or right goes wrong here, where nothing has changed yet.
func Stage(path string, data []byte, adjust func(*os.File) error) (*Staged, error) {
	return stage(path, data, func(f *os.File) error { return errors.Join(adjust(f), f.Sync()) })
}

func stage(path string, data []byte, finish func(*os.File) error) (*Staged, error) {
	temp, err := createTemp(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	_, err = temp.Write(data)
	if err == nil {
		err = finish(temp)
	}
	s := &Staged{Temp: temp.Name(), path: path}
	if err := errors.Join(err, temp.Close()); err != nil {
		s.Discard()
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return s, nil
}

// createTemp makes a file of a name that no other has, readable for its owner alone.
func createTemp(dir string) (*os.File, error) {
	for {
		file, err := plainfile.Open(filepath.Join(dir, fmt.Sprintf("%s%08x", TempPrefix, rand.Uint32())), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
		if !errors.Is(err, fs.ErrExist) {
			return file, err
		}
	}
}

// StageLink stages a symlink over itself.
func StageLink(path string) (*Staged, error) {
	target, err := os.Readlink(path)
	if err != nil {
		return nil, fmt.Errorf("read the symlink: %w", err)
	}
	for n := range 100 {
		s := &Staged{Temp: filepath.Join(filepath.Dir(path), fmt.Sprintf("%slink-%d", TempPrefix, n)), path: path}
		if err = os.Symlink(target, s.Temp); err == nil {
			return s, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	return nil, fmt.Errorf("write beside %s: %w", path, err)
}

// Discard removes what was not committed. After a commit it does nothing.
func (s *Staged) Discard() {
	if s != nil && !s.placed {
		_ = plainfile.Remove(s.Temp)
	}
}

// Commit replaces whatever is at the place, in one step that survives a power loss.
func (s *Staged) Commit() error {
	if err := s.rename(); err != nil {
		return err
	}
	return syncDir(filepath.Dir(s.path))
}

// CommitNew is Commit for a place where nothing is. Where something is by now, the error is fs.ErrExist.
func (s *Staged) CommitNew() error {
	err := unix.Renameat2(unix.AT_FDCWD, s.Temp, unix.AT_FDCWD, s.path, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // not on every file system
		if _, err := os.Lstat(s.path); errors.Is(err, fs.ErrNotExist) {
			return s.Commit()
		}
		err = unix.EEXIST
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", s.path, err)
	}
	return syncDir(filepath.Dir(s.path))
}

func (s *Staged) rename() error {
	if err := unix.Rename(s.Temp, s.path); err != nil {
		return fmt.Errorf("replace %s: %w", s.path, err)
	}
	s.placed = true
	return nil
}

// Remove removes a file so that it is gone after a power loss, too. One that is gone already is no error.
func Remove(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// Unfinished lists the temporary files that killed writes left in a directory, those of version 0.1.0 for the given names too.
func Unfinished(dir string, names ...string) []string {
	prefixes := []string{TempPrefix, formerTempPrefix}
	for _, name := range names {
		prefixes = append(prefixes, "."+name+".tmp-")
	}
	entries, _ := os.ReadDir(dir)
	var paths []string
	for _, entry := range entries {
		if slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(entry.Name(), prefix) }) {
			paths = append(paths, filepath.Join(dir, entry.Name()))
		}
	}
	return paths
}

// Sweep removes what Unfinished lists. The caller sees to it that nobody writes there at the same time.
func Sweep(dir string) {
	for _, path := range Unfinished(dir) {
		_ = os.Remove(path)
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer func() { _ = d.Close() }()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}
