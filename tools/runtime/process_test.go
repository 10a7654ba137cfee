package runtime

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// process is a program that runs on a node.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

// start starts one, which ends with the node or the test. Variables may stand before its name, as in a shell.
func (m *machine) start(t *testing.T, args ...string) *process {
	t.Helper()
	program := args[slices.IndexFunc(args, func(arg string) bool { return !strings.Contains(arg, "=") })]
	log, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p := &process{cmd: m.command(log, args...), log: log.Name(), done: make(chan struct{})}
	if err := m.startInside(p.cmd); err != nil {
		t.Fatalf("start %s: %v", program, err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	netnstest.OnExit(t, func() {
		p.stop(syscall.SIGKILL)
		if t.Failed() {
			t.Logf("%s:\n%s", program, p.output())
		}
	})
	return p
}

// stop sends a signal and waits for the end.
func (p *process) stop(sig syscall.Signal) {
	_ = p.cmd.Process.Signal(sig)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) output() string {
	data, _ := os.ReadFile(p.log)
	return string(data)
}

// startInside starts a command in the node's namespaces. A child inherits those of the thread that starts it, so this needs a
// thread that ends afterwards; the main one cannot, and whoever comes to run on it goes elsewhere.
func (m *machine) startInside(cmd *exec.Cmd) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			result <- m.startInside(cmd)
			return
		}
		err := m.join()
		if err == nil {
			err = cmd.Start()
		}
		result <- err
	}()
	return <-result
}

// join moves the calling thread into the node. Its children are in the node's process tree.
func (m *machine) join() error {
	init, err := unix.PidfdOpen(m.init.Process.Pid, 0)
	if err != nil {
		return fmt.Errorf("open init: %w", err)
	}
	defer func() { _ = unix.Close(init) }()
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare fs: %w", err)
	}
	const all = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS
	if err := unix.Setns(init, all); err != nil {
		return fmt.Errorf("join the node: %w", err)
	}
	return nil
}
