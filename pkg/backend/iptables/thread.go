package iptables

import (
	"context"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// onThread makes a call on a thread of its own, in the caller's network namespace, which ends with the call. Programs that it
// starts are in that namespace, too. A call that outlives the context is left behind: go-iptables cannot be interrupted, but its
// programs stop waiting for the xtables lock by themselves.
func onThread(ctx context.Context, call func() error) error {
	runtime.LockOSThread() // the new thread looks at this one's namespace
	defer runtime.UnlockOSThread()
	result := make(chan error, 1)
	go runNear(unix.Gettid(), call, result)
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// runNear keeps off the process's first thread, which cannot end and whose namespace is that of the process in /proc.
func runNear(caller int, call func() error, result chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		defer runtime.UnlockOSThread()
		inner := make(chan error, 1)
		go runNear(caller, call, inner)
		result <- <-inner
		return
	}
	moved, err := joinNetwork(caller)
	if err == nil {
		err = call()
	}
	if !moved {
		runtime.UnlockOSThread()
	}
	result <- err // A thread that moved stays locked, so the runtime ends it.
}

// joinNetwork asks for no privilege where both threads are in one namespace, as in production.
func joinNetwork(caller int) (moved bool, err error) {
	path := fmt.Sprintf("/proc/self/task/%d/ns/net", caller)
	theirs, err := os.Readlink(path)
	if err != nil {
		return false, err
	}
	if own, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || own == theirs {
		return false, err
	}
	namespace, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer func() { _ = namespace.Close() }()
	return true, unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET)
}
