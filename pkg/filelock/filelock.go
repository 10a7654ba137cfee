// Package filelock takes advisory locks (flock) that end with the process, however it ends.
//
// It refuses to lock anything that another user can open: flock asks for no more than an open file, so whoever may read a
// file or a directory may also lock it and keep everybody else out for as long as he likes.
package filelock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/plainfile"
)

// Mode says who may hold a lock at the same time.
type Mode int

// Any number of shared holders, or a single exclusive one.
const (
	Shared    Mode = unix.LOCK_SH
	Exclusive Mode = unix.LOCK_EX
)

// HeldError says that another process has the lock. Holders are the processes of this user that are seen to hold it; there are
// none where the holder runs in another PID namespace, such as another container's.
type HeldError struct {
	Path    string
	Holders []Process
	Waited  time.Duration
}

func (e *HeldError) Error() string {
	who := "a process that is not visible from here, such as one in another container"
	if len(e.Holders) > 0 {
		var names []string
		for _, p := range e.Holders {
			names = append(names, p.String())
		}
		who = strings.Join(names, ", ")
	}
	text := e.Path + " is held by " + who
	if e.Waited >= time.Second {
		text += fmt.Sprintf("; waited for it for %s", e.Waited.Round(time.Second))
	}
	return text
}

// Lock is a lock that is held.
type Lock struct {
	path string
	file *os.File
}

// Acquire locks the file at path, which is made (mode 0600) together with its directory (mode 0700) where they are missing.
// It waits until ctx is done, and then returns a *HeldError. With a ctx that is done already it tries once.
func Acquire(ctx context.Context, path string, mode Mode) (*Lock, error) {
	start := time.Now()
	for {
		file, err := open(ctx, path)
		if err != nil {
			return nil, err
		}
		if err := wait(ctx, file, mode); err != nil {
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, &HeldError{path, holders(path), time.Since(start)}
			}
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		// The former holder may have removed the file, and others lock a new one by now.
		if l := (&Lock{path, file}); l.Current() {
			return l, nil
		}
		_ = file.Close()
	}
}

// Try is Acquire without waiting.
func Try(path string, mode Mode) (*Lock, error) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return Acquire(ctx, path, mode)
}

// Check returns the *HeldError that Try would return, and makes nothing.
func Check(path string, mode Mode) error {
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the lock: %w", err)
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("look at the lock: %w", err)
	}
	held := holders(path)
	if private(info) == nil {
		if !errors.Is(flock(file, mode|unix.LOCK_NB), unix.EWOULDBLOCK) {
			return nil
		}
	} else if len(held) == 0 {
		return nil
	}
	return &HeldError{Path: path, Holders: held}
}

// Release ends the lock. Its file stays.
func (l *Lock) Release() { _ = l.file.Close() }

// Remove ends an exclusive lock and takes its file away. Who waits for it makes a new one.
func (l *Lock) Remove() {
	_ = os.Remove(l.path)
	l.Release()
}

// Current says whether the path still names the file that is locked: others lock the file that they find there.
func (l *Lock) Current() bool {
	here, err := os.Lstat(l.path)
	own, ownErr := l.file.Stat()
	return err == nil && ownErr == nil && os.SameFile(here, own)
}

// open returns the file at path, which nobody else can open.
func open(ctx context.Context, path string) (*os.File, error) {
	for tries := 0; ; tries++ {
		if err := makeDirectory(filepath.Dir(path)); err != nil {
			return nil, err
		}
		file, err := plainfile.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW, 0o600)
		if errors.Is(err, fs.ErrNotExist) && tries < 1000 {
			continue // another process removed the directory meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("open the lock: %w", err)
		}
		info, err := file.Stat()
		if err == nil && private(info) == nil {
			return file, nil
		}
		_ = file.Close()
		if err != nil {
			return nil, fmt.Errorf("look at the lock: %w", err)
		}
		if err := replace(ctx, path); err != nil {
			return nil, err
		}
	}
}

// makeDirectory makes the directory of a lock. In one that others can write they could put another file into its place.
func makeDirectory(dir string) error {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
			return fmt.Errorf("make the directory of the lock: %w", err)
		}
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make the directory of the lock: %w", err)
		}
		info, err = os.Stat(dir)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // another process removed it at once; opening the file tells
	case err != nil:
		return fmt.Errorf("the directory of the lock: %w", err)
	case info.Mode().Perm()&0o002 != 0:
		return fmt.Errorf("other users can write in %s (mode %#o), which holds locks: take that right away with `chmod o-w %s`", dir, info.Mode().Perm(), dir)
	}
	return nil
}

// private says why a file is none that only this user can open, or nothing.
func private(info os.FileInfo) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return errors.New("not a regular file")
	case !ok || int(stat.Uid) != os.Geteuid():
		return errors.New("another user's file")
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("open to others (mode %#o)", info.Mode().Perm())
	}
	return nil
}

// replaceInterval is how often a file that must be replaced is looked at while one of our processes holds it.
const replaceInterval = 20 * time.Millisecond

// replace removes a file that others can open, as those of earlier versions are: taking the right away would not close it
// for who has it open. The lock beside it makes sure that the file that goes is the one that was looked at, and not the one
// that another process has just put into its place. An earlier version that still runs keeps its lock.
func replace(ctx context.Context, path string) error {
	guard, err := Acquire(ctx, path+".replace", Exclusive)
	if err != nil {
		return err
	}
	defer guard.Remove()
	start := time.Now()
	for {
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && private(info) == nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("look at the lock: %w", err)
		}
		held := holders(path)
		if len(held) == 0 {
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("replace the lock, which is %w: %w", private(info), err)
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return &HeldError{path, held, time.Since(start)}
		case <-time.After(replaceInterval):
		}
	}
}

// wait locks an open file, and closes it where that fails. Waiting is the kernel's, which wakes those who wait one by one,
// where polling would keep a hundred of them busy.
func wait(ctx context.Context, file *os.File, mode Mode) error {
	err := flock(file, mode|unix.LOCK_NB)
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.EWOULDBLOCK) || ctx.Err() != nil {
		_ = file.Close()
		return err
	}
	locked := make(chan error)
	go func() {
		err := flock(file, mode)
		select {
		case locked <- err:
		case <-ctx.Done(): // the call cannot be called off, but nobody waits for what it got
			_ = file.Close()
		}
	}()
	select {
	case err := <-locked:
		if err != nil {
			_ = file.Close()
		}
		return err
	case <-ctx.Done():
		return unix.EWOULDBLOCK
	}
}

func flock(file *os.File, how Mode) error {
	for {
		if err := unix.Flock(int(file.Fd()), int(how)); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
