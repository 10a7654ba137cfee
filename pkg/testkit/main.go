package testkit

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// The environment in which a test binary starts itself again.
const (
	envMoved = "IP_MASQ_TEST_MOVED" // it is in its own network namespace
	envBuilt = "IP_MASQ_TEST_BUILT" // what was built for it is in this directory
)

// For machines without Go, as the guests of make kernels: what the tests need is built elsewhere.
const (
	envBuildOnly = "IP_MASQ_TEST_BUILD_ONLY" // build into this directory and run no test
	envPrebuilt  = "IP_MASQ_TEST_PREBUILT"   // build nothing, it is all in this directory
)

// Main is the body of a TestMain. It lets the steps build what the tests need into a new directory, which Built returns and
// which is removed after the tests, and runs the tests in a network namespace of their own: a test that forgets to say where
// it wants its rules cannot reach the machine's firewall. Without root it cannot reach that anyway.
//
// The steps run first, outside, because the go command may have to download modules.
func Main(m *testing.M, steps ...func(dir string) error) int {
	if os.Getenv(envMoved) != "" {
		defer removeBuilt()
		return m.Run()
	}
	err := build(steps)
	if os.Getenv(envBuildOnly) != "" && err == nil {
		return 0
	}
	defer removeBuilt()
	if err == nil && os.Geteuid() == 0 {
		err = move()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// build makes the directory, readable by everybody because some tests run programs as another user.
func build(steps []func(dir string) error) error {
	dir := os.Getenv(envPrebuilt)
	if dir != "" {
		return os.Setenv(envBuilt, dir)
	}
	var err error
	if dir = os.Getenv(envBuildOnly); dir != "" {
		err = os.MkdirAll(dir, 0o755)
	} else {
		dir, err = os.MkdirTemp("", "ip-masq-test-")
	}
	if err == nil {
		err = errors.Join(os.Chmod(dir, 0o755), os.Setenv(envBuilt, dir))
	}
	for _, step := range steps {
		if err == nil {
			err = step(dir)
		}
	}
	return err
}

// removeBuilt leaves alone what others built.
func removeBuilt() {
	if os.Getenv(envPrebuilt) == "" && Built() != "" {
		_ = os.RemoveAll(Built())
	}
}

// move starts this program again inside a new network namespace: exec keeps the namespace of the thread that calls it for the
// whole new process. The loopback interface is up, as on any machine.
func move() error {
	runtime.LockOSThread()
	err := syscall.Unshare(syscall.CLONE_NEWNET)
	if err == nil {
		err = loopbackUp()
	}
	if err == nil {
		err = syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), envMoved+"=1"))
	}
	return fmt.Errorf("cannot move the tests into a network namespace: %w", err)
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// Built is the directory that the steps of Main wrote to.
func Built() string { return os.Getenv(envBuilt) }

// Version is what the programs say that Programs builds.
const Version = "v0.0.0-test"

// Programs is a step of Main that builds the three programs as `make build` does, from the source as it is now.
func Programs(dir string) error {
	root, err := netnstest.RepoRoot()
	if err != nil {
		return err
	}
	build := exec.Command(filepath.Join(root, "scripts", "build"), dir)
	build.Env = append(os.Environ(), "VERSION="+Version)
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("scripts/build: %w\n%s", err, text)
	}
	return nil
}

// Program is the path of a program that Programs built.
func Program(name string) string { return filepath.Join(Built(), name) }

// GoBuild runs go build in the directory of a module or package: static and stripped, with further linker flags.
func GoBuild(in, out, ldflags string, packages ...string) error {
	build := exec.Command("go", append([]string{"build", "-trimpath", "-ldflags=-s -w " + ldflags, "-o", out}, packages...)...)
	build.Dir, build.Env = in, append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %v: %w\n%s", packages, err, text)
	}
	return nil
}
