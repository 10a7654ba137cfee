package netnstest

import (
	"bytes"
	"context"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Process is a command that runs in the background.
type Process struct {
	Pid  int
	Done <-chan struct{} // closed when it has ended

	cmd    *exec.Cmd
	output lockedBuffer
}

// Start starts a command that ends with the test at the latest: by SIGTERM, and
// by SIGKILL where that does not help.
func (s *Space) Start(t TB, c Cmd) *Process {
	t.Helper()
	cmd, err := s.command(context.Background(), c)
	if err != nil {
		t.Fatalf("%v", err)
	}
	p := &Process{cmd: cmd}
	cmd.Stdout, cmd.Stderr = &p.output, &p.output
	if err := s.start(cmd); err != nil {
		t.Fatalf("start %s: %v", c.Args[0], err)
	}
	done := make(chan struct{})
	p.Pid, p.Done = cmd.Process.Pid, done
	go func() { _ = cmd.Wait(); close(done) }()
	OnExit(t, func() { p.Stop(syscall.SIGTERM, 3*time.Second) })
	return p
}

// Stop sends the signal, kills the process when it has not ended after the
// patience, and returns its exit code (-1: ended by a signal).
func (p *Process) Stop(sig syscall.Signal, patience time.Duration) int {
	_ = p.cmd.Process.Signal(sig)
	select {
	case <-p.Done:
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
	}
	<-p.Done
	return p.cmd.ProcessState.ExitCode()
}

// Signal sends a signal, SIGHUP for example.
func (p *Process) Signal(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) }

// Output is all that the process wrote so far, stdout and stderr mixed.
func (p *Process) Output() string { return p.output.String() }

// lockedBuffer may be read while the process still writes.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(data)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
