package iptables

import (
	"context"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// in makes a call in which paths, links and programs are those of the host: directly where the host's root is our own.
func (h Host) in(call func() error) error {
	if h == "" {
		return call()
	}
	return h.thread(context.Background(), call)
}

// thread makes a call on a thread of its own, which sees the host's root and the caller's network namespace, and which ends
// with the call. Programs that it starts see the same. A call that outlives the context is left behind: go-iptables cannot be
// interrupted, but its programs stop waiting for the xtables lock by themselves.
func (h Host) thread(ctx context.Context, call func() error) error {
	runtime.LockOSThread() // the new thread looks at this one's namespace
	defer runtime.UnlockOSThread()
	result := make(chan error, 1)
	go h.onThread(unix.Gettid(), call, result)
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// onThread keeps off the process's first thread, which cannot end and whose root is that of the process in /proc.
func (h Host) onThread(caller int, call func() error, result chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		defer runtime.UnlockOSThread()
		inner := make(chan error, 1)
		go h.onThread(caller, call, inner)
		result <- <-inner
		return
	}
	err := h.enter(caller)
	if err == nil {
		err = call()
	}
	result <- err // The goroutine ends locked to the thread, so the runtime ends both.
}

func (h Host) enter(caller int) error {
	if err := joinNetwork(caller); err != nil {
		return fmt.Errorf("join the caller's network namespace: %w", err)
	}
	if h == "" {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare the root directory: %w", err)
	}
	if err := unix.Chroot(string(h)); err != nil {
		return fmt.Errorf("change to the host's root %s: %w", h, err)
	}
	return unix.Chdir("/")
}

// joinNetwork asks for no privilege where both threads are in one namespace, as in production.
func joinNetwork(caller int) error {
	path := fmt.Sprintf("/proc/self/task/%d/ns/net", caller)
	theirs, err := os.Readlink(path)
	if err != nil {
		return err
	}
	if own, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || own == theirs {
		return err
	}
	namespace, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = namespace.Close() }()
	return unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET)
}
