package install

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// loadable are the extensions that runtimes load (libcni, ConfFiles; containerd and CRI-O ask for these three).
var loadable = []string{".conf", listExt, ".json"}

// candidates are the files among which the runtime chooses, in its order: bytewise, so that a dot file comes before "00-".
// Only directories are passed over; a symlink to one is not, and neither is a link to nowhere.
func candidates(dir string) ([]string, error) {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notNow("there is no directory %s (--cni-conf-dir); the runtime, or the network's owner, makes it", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("read the networks: %w", err)
	}
	var names []string
	for _, file := range files {
		if !file.IsDir() && slices.Contains(loadable, filepath.Ext(file.Name())) {
			names = append(names, file.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// confFile is a file of the conf directory as it was read.
type confFile struct {
	path string // as the runtime finds it
	real string // the file itself: another path where path is a symlink
	info os.FileInfo
	raw  []byte
}

func (f *confFile) name() string { return filepath.Base(f.path) }
func (f *confFile) isLink() bool { return f.real != f.path }

// readFile reads a network's file through its links.
func readFile(path string) (*confFile, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("read the network: %w", err)
	}
	f := &confFile{path: path, real: path}
	if info.Mode()&fs.ModeSymlink != 0 {
		if f.real, err = filepath.EvalSymlinks(path); err != nil {
			return nil, notNow("%s is a symlink that leads nowhere: %w", path, err)
		}
	}
	if err := f.read(); err != nil {
		return nil, err
	}
	return f, nil
}

// read opens without waiting: a named pipe would otherwise keep us for ever, as it does the runtime.
func (f *confFile) read() error {
	file, err := os.OpenFile(f.real, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("read the network: %w", err)
	}
	defer func() { _ = file.Close() }()
	if f.info, err = file.Stat(); err != nil {
		return fmt.Errorf("read the network: %w", err)
	}
	if !f.info.Mode().IsRegular() {
		return notNow("%s is not a file", f.path)
	}
	if f.raw, err = io.ReadAll(file); err != nil {
		return fmt.Errorf("read %s: %w", f.path, err)
	}
	return nil
}

// unchanged says whether the file is still the one that was read.
func (f *confFile) unchanged() error {
	info, err := os.Stat(f.real)
	if err != nil || identity(info) != identity(f.info) {
		return fmt.Errorf("%s: %w", f.path, errLost)
	}
	return nil
}
