package node

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"testing"
)

// TestMain moves the tests into a network namespace of their own before anything else runs, so that a test that forgets to say
// where it wants its rules has no machine's firewall in reach. Without root there is none anyway.
func TestMain(m *testing.M) {
	const moved = "IP_MASQ_TEST_MOVED"
	if os.Geteuid() == 0 && os.Getenv(moved) == "" {
		runtime.LockOSThread()
		err := syscall.Unshare(syscall.CLONE_NEWNET)
		if err == nil { // exec keeps the namespace of the thread that calls it, for the whole new process
			err = syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), moved+"=1"))
		}
		fmt.Fprintln(os.Stderr, "cannot move into a network namespace:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}
