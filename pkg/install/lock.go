package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lockTime is more than another installer needs, whose plugin may take its time to answer.
const lockTime = 30 * time.Second

// lockDirs makes this the only installer at work in both directories, by locking the directories themselves: that leaves no
// file behind, and ends with the process however that ends.
func (i *installer) lockDirs(ctx context.Context) (func(), error) {
	ctx, cancel := context.WithTimeout(ctx, lockTime)
	defer cancel()
	bin, err := lockDir(ctx, i.BinDir)
	if err != nil {
		return nil, missing(err, i.BinDir, "--cni-bin-dir")
	}
	if sameDir(i.BinDir, i.ConfDir) {
		return func() { _ = bin.Close() }, nil
	}
	conf, err := lockDir(ctx, i.ConfDir)
	if err != nil {
		_ = bin.Close()
		return nil, missing(err, i.ConfDir, "--cni-conf-dir")
	}
	return func() { _, _ = conf.Close(), bin.Close() }, nil
}

func missing(err error, dir, flag string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return notNow("there is no directory %s (%s)", dir, flag)
	}
	return err
}

func sameDir(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

func lockDir(ctx context.Context, dir string) (*os.File, error) {
	d, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	for {
		// A file system that cannot lock is no reason to leave the node without the plugin.
		if err := flock(d, unix.LOCK_EX); !errors.Is(err, unix.EWOULDBLOCK) {
			return d, nil
		}
		select {
		case <-ctx.Done():
			_ = d.Close()
			return nil, fmt.Errorf("another ip-masq-installer is at work in %s: %w", dir, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// watchLock is held by every watch of a node, together with others, and by uninstall alone.
const watchLock = "installer.lock"

func (o Options) watchLock() string { return filepath.Join(o.StateDir, watchLock) }

// unwatched fails while a watch holds the node: it would put back what uninstall takes out. The lock is held until the
// returned function is called. Where there is no lock file there is no watch.
func (o Options) unwatched() (func(), error) {
	file, err := os.Open(o.watchLock())
	if errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the lock of watch (--state-dir): %w", err)
	}
	if err := flock(file, unix.LOCK_EX); errors.Is(err, unix.EWOULDBLOCK) {
		_ = file.Close()
		return nil, notNow("an ip-masq-installer watch holds this node (%s) and would put the entry back; end it first", o.watchLock())
	}
	return func() { _ = file.Close() }, nil
}

// holdNode takes the lock of watch, or keeps it where the file is still the one that is held: somebody may have cleaned the
// state directory.
func (o Options) holdNode(held *os.File) (*os.File, error) {
	if held != nil {
		here, err := os.Stat(o.watchLock())
		own, ownErr := held.Stat()
		if err == nil && ownErr == nil && os.SameFile(here, own) {
			return held, nil
		}
		_ = held.Close()
	}
	if err := os.MkdirAll(o.StateDir, 0o755); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	file, err := os.OpenFile(o.watchLock(), os.O_RDONLY|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the lock of watch: %w", err)
	}
	if err := flock(file, unix.LOCK_SH); errors.Is(err, unix.EWOULDBLOCK) {
		_ = file.Close()
		return nil, notNow("an uninstall is at work on this node")
	}
	return file, nil
}
