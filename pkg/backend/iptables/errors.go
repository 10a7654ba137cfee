package iptables

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	goiptables "github.com/coreos/go-iptables/iptables"
	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
)

// The exit statuses of iptables (include/xtables.h) that say more than "that rule or chain is not there".
const (
	exitVersion  = 3 // the kernel lacks something: VERSION_PROBLEM
	exitResource = 4 // no memory, or a lock: RESOURCE_PROBLEM
)

// classify puts what a program's end means into one of the classes that callers tell apart: ErrBusy for a lock that another
// program held for too long, ErrUnavailable where the program or the kernel's side of it is missing, the context's error when
// time ran out. Anything else is just a refused request, an *ExitError.
func classify(ctx context.Context, err error) error {
	if err == nil || classified(err) {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	var failed *ExitError
	if !errors.As(err, &failed) {
		return fmt.Errorf("%w: %w", backend.ErrUnavailable, err)
	}
	switch {
	case failed.Signal == syscall.SIGKILL: // a machine without memory kills programs: it may work next time
		return fmt.Errorf("%w: %w", backend.ErrBusy, err)
	case failed.Signal != 0:
		return fmt.Errorf("%w: %w", errKilled, err)
	case failed.Status == exitResource:
		return fmt.Errorf("%w: %w", backend.ErrBusy, err)
	case failed.Status == exitVersion:
		return fmt.Errorf("%w: %w", backend.ErrUnavailable, err)
	}
	return err
}

// classified reports whether an error says more than that a chain or rule is absent.
func classified(err error) bool {
	return errors.Is(err, backend.ErrUnavailable) || errors.Is(err, backend.ErrBusy) || errors.Is(err, errKilled) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// classifyKernel does the same for an answer of nf_tables.
func classifyKernel(err error) error {
	isAny := func(errnos ...error) bool {
		for _, errno := range errnos {
			if errors.Is(err, errno) {
				return true
			}
		}
		return false
	}
	switch {
	case err == nil, classified(err):
		return err
	case isAny(unix.EPERM, unix.EACCES):
		return fmt.Errorf("%w: CAP_NET_ADMIN is missing: %w", backend.ErrUnavailable, err)
	case isAny(unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT):
		return fmt.Errorf("%w: the kernel does not support nf_tables: %w", backend.ErrUnavailable, err)
	case isAny(unix.EBUSY, unix.ERESTART, unix.EAGAIN, unix.EINTR, unix.ENOBUFS, unix.ENOMEM, unix.ENOENT, nfnl.ErrInterrupted):
		return fmt.Errorf("%w: %w", backend.ErrBusy, err)
	}
	return err
}

// refused reports whether a program said no, for a reason that is in what it was asked for.
func refused(err error) bool {
	var failed *ExitError
	return errors.As(err, &failed) && failed.Signal == 0 && failed.Status != exitResource
}

var (
	// errKilled is a program that a signal ended, which says nothing about what it looked for.
	errKilled = errors.New("ended by a signal")
	// errDropped is a write that succeeded and did not last.
	errDropped = errors.New("the kernel does not hold the rules that were just written")
)

// ExitError is a program that ended with a status other than 0.
type ExitError struct {
	Program string
	Status  int
	Signal  syscall.Signal // that ended it; then Status says nothing
	Stderr  string
}

// Error says what ran and the line that it complained with: the first, but not the one about an option that we gave; for a lock the
// last, because 1.8.7 counts the time down before.
func (e *ExitError) Error() string {
	lines := strings.Split(strings.TrimSpace(e.Stderr), "\n")
	if len(lines) > 1 && strings.Contains(lines[0], waitInterval) {
		lines = lines[1:]
	}
	line := lines[0]
	if e.Status == exitResource {
		line = lines[len(lines)-1]
	}
	if e.Signal != 0 {
		return fmt.Sprintf("%s: ended by signal %q: %s", e.Program, e.Signal, line)
	}
	return fmt.Sprintf("%s: exit status %d: %s", e.Program, e.Status, line)
}

// exitError is what go-iptables returned, as the error that this package has for the end of a program.
func exitError(program string, err error) error {
	var failed *goiptables.Error
	if !errors.As(err, &failed) {
		return err
	}
	_, complaint, _ := strings.Cut(failed.Error(), fmt.Sprintf("exit status %d: ", failed.ExitStatus()))
	return newExitError(program, failed.ProcessState, complaint)
}

func newExitError(program string, state *os.ProcessState, stderr string) *ExitError {
	failed := &ExitError{Program: program, Status: state.ExitCode(), Stderr: stderr}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		failed.Signal = status.Signal()
	}
	return failed
}
