// Package plainfile opens, reads and removes regular files with one system call where package os needs up to six: os.OpenFile
// offers every file to the runtime's poller, which takes five more calls, starts the poller's thread and wakes it, and os.Remove
// takes what it cannot unlink for a directory. For a daemon that is nothing; a plugin that starts for every pod, and touches ten
// files, is done earlier without.
//
// It refuses whatever may block, such as pipes and sockets, for which the poller is there.
package plainfile

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Open is os.OpenFile for a regular file.
func Open(path string, flags int, mode uint32) (*os.File, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, mode)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), path), nil
		case !errors.Is(err, unix.EINTR):
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
	}
}

// Read is os.ReadFile for a regular file.
func Read(path string) ([]byte, error) {
	file, err := Open(path, unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	return io.ReadAll(file)
}

// Remove is os.Remove. What is gone already is no error.
func Remove(path string) error {
	for {
		err := unix.Unlink(path)
		switch {
		case err == nil, errors.Is(err, unix.ENOENT):
			return nil
		case errors.Is(err, unix.EISDIR):
			return os.Remove(path)
		case !errors.Is(err, unix.EINTR):
			return &fs.PathError{Op: "remove", Path: path, Err: err}
		}
	}
}
