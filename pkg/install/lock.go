package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/filelock"
)

// The locks are files: every user may read the CNI directories, and so could lock them.
const (
	passLock  = "install.lock"   // held by one installer while it changes the node
	watchLock = "installer.lock" // held by every watch of a node, together with others, and by uninstall alone
)

// lockTime is more than another installer needs, whose plugin may take its time to answer.
const lockTime = 30 * time.Second

// lockDirs are where the locks may be: in the state directory, which is made when it is missing, or where that cannot be, beside
// the plugin, which every installer of a node can reach. Runtimes look for plugins by name and not in directories.
func (o Options) lockDirs() []string {
	return []string{o.StateDir, filepath.Join(o.BinDir, ".ip-masq-installer")}
}

// acquire takes a lock in the first directory where that is possible. The returned function removes the directory, where that
// was made for locks and holds no other one.
func (o Options) acquire(name string, take func(path string) (*filelock.Lock, error)) (lock *filelock.Lock, tidy func(), err error) {
	var failed []error
	for _, dir := range o.lockDirs() {
		if dir != o.StateDir && !exists(o.BinDir) {
			break
		}
		isOwn := dir != o.StateDir || !exists(dir)
		lock, err := take(filepath.Join(dir, name))
		var held *filelock.HeldError
		if err == nil || errors.As(err, &held) {
			return lock, func() {
				if isOwn {
					_ = os.Remove(dir)
				}
			}, err
		}
		failed = append(failed, err)
	}
	return nil, nil, errors.Join(failed...)
}

// lock makes this the only installer at work on the node, until the returned function is called or the process ends.
func (o Options) lock(ctx context.Context) (func(), error) {
	ctx, cancel := context.WithTimeout(ctx, lockTime)
	defer cancel()
	lock, tidy, err := o.acquire(passLock, func(path string) (*filelock.Lock, error) {
		return filelock.Acquire(ctx, path, filelock.Exclusive)
	})
	var held *filelock.HeldError
	if errors.As(err, &held) {
		return nil, fmt.Errorf("another ip-masq-installer is at work: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("the lock between installers (--state-dir): %w", err)
	}
	return func() { lock.Remove(); tidy() }, nil
}

// unwatched fails while a watch works on the node: it would put back what uninstall takes out. None begins until the returned
// function is called. The caller has the lock of lock, so that no other uninstall is taken for a watch.
func (o Options) unwatched() (func(), error) {
	if err := o.watched(); err != nil {
		return nil, err
	}
	lock, tidy, err := o.acquire(watchLock, func(path string) (*filelock.Lock, error) {
		return filelock.Try(path, filelock.Exclusive)
	})
	if err != nil {
		return nil, watchedBy(err)
	}
	return func() { lock.Remove(); tidy() }, nil
}

// watched is unwatched for a look: it takes and makes nothing.
func (o Options) watched() error {
	for _, dir := range o.lockDirs() {
		if err := filelock.Check(filepath.Join(dir, watchLock), filelock.Exclusive); err != nil {
			return watchedBy(err)
		}
	}
	return nil
}

func watchedBy(err error) error {
	var held *filelock.HeldError
	if errors.As(err, &held) {
		return notNow("an ip-masq-installer watch works on this node and would put the entry back; end it first (%w)", err)
	}
	return fmt.Errorf("the lock of watch (--state-dir): %w", err)
}
