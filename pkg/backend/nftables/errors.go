package nftables

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
)

// classify puts a kernel's answer into one of the classes that callers tell apart. Answers that mean something only where
// they were given, such as ENOENT, stay as they are.
func classify(err error) error {
	switch {
	case err == nil, classified(err):
		return err
	case isAny(err, unix.EPERM, unix.EACCES):
		return fmt.Errorf("%w: CAP_NET_ADMIN is missing: %w", backend.ErrUnavailable, err)
	case isAny(err, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT):
		return fmt.Errorf("%w: the kernel does not support it: %w", backend.ErrUnavailable, err)
	case isAny(err, busyErrnos...), errors.Is(err, nfnl.ErrInterrupted):
		return fmt.Errorf("%w: %w", backend.ErrBusy, err)
	}
	return err
}

// busyErrnos are the answers that another moment may change.
var busyErrnos = []unix.Errno{unix.EBUSY, unix.ERESTART, unix.EAGAIN, unix.EINTR, unix.ENOBUFS, unix.ENOMEM}

func classified(err error) bool {
	return errors.Is(err, backend.ErrUnavailable) || errors.Is(err, backend.ErrIncomplete) || errors.Is(err, backend.ErrBusy)
}

// outdated reports whether a transaction failed because the ruleset was not, or no longer, what it was planned for.
func outdated(err error) bool {
	return isAny(err, unix.ENOENT, unix.EEXIST, unix.ENOTEMPTY) || isAny(err, busyErrnos...) || errors.Is(err, nfnl.ErrInterrupted)
}

func isAny(err error, errnos ...unix.Errno) bool {
	for _, errno := range errnos {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// The limits of trying again: in total where the context sets none, and between two attempts.
const (
	defaultWait = 5 * time.Second
	firstPause  = 100 * time.Microsecond
	longPause   = 20 * time.Millisecond
)

// again repeats a reading and the transaction planned from it until no other transaction comes between the two. The pauses
// grow, and the clock's last digits vary them, so that fifty plugins at once do not stay in step.
func again(ctx context.Context, attempt func() error) error {
	wait := context.CancelFunc(nil) // a timer for what hardly ever happens would cost every pod's start
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		err := attempt()
		if err == nil || (!isAny(err, busyErrnos...) && !errors.Is(err, nfnl.ErrInterrupted)) {
			return err
		}
		if wait == nil {
			ctx, wait = context.WithTimeout(ctx, defaultWait)
			defer wait()
		}
		select {
		case <-ctx.Done():
			return classify(err)
		case <-time.After(pause/2 + time.Duration(time.Now().Nanosecond())%pause):
		}
	}
}
