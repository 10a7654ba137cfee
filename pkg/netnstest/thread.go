package netnstest

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// onThread runs fn on an operating system thread of its own that ends together
// with fn, so that fn may move the thread into other namespaces for good.
//
// Never on the main thread: that one cannot end, and /proc/self shows the whole
// process through its eyes.
func onThread(fn func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// Holding the main thread keeps the next goroutine off it.
			defer runtime.UnlockOSThread()
			result <- onThread(fn)
			return
		}
		result <- fn() // Still locked: the runtime ends the thread.
	}()
	return <-result
}

// bind is one directory that a private mount namespace shows in another place.
type bind struct{ from, to string }

// privateMounts returns a mount namespace that differs from ours by binds only.
// It lives as long as the file is open or a process is in it.
//
// Propagation is "slave", not "private": the namespaces that `ip netns add`
// mounts later must show up in it, and their removal must too.
func privateMounts(binds ...bind) (*os.File, error) {
	var mounts *os.File
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("unshare mounts: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("mount --make-rslave /: %w", err)
		}
		for _, b := range binds {
			if err := unix.Mount(b.from, b.to, "", unix.MS_BIND, ""); err != nil {
				return fmt.Errorf("mount --bind %s %s: %w", b.from, b.to, err)
			}
		}
		var err error
		mounts, err = os.Open("/proc/thread-self/ns/mnt")
		return err
	})
	return mounts, err
}

// joinMounts moves the calling thread, which must be one of onThread's.
func joinMounts(mounts *os.File) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare fs: %w", err)
	}
	if err := unix.Setns(int(mounts.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("join mount namespace: %w", err)
	}
	return nil
}
