// Package nfevents reports that nf_tables changed, by the kernel's notification group. iptables-nft is noticed too, since
// its rules are nf_tables rules; iptables-legacy is not, because ip_tables reports nothing.
//
// It refuses to say what changed: decoding a storm of foreign rules costs more than looking at our own.
package nfevents

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// quiet is how long the socket is left alone after an event. What comes meanwhile fills its buffer and then is dropped by the
// kernel, so a program that writes thousands of rules a second costs us ten wake-ups.
const quiet = 100 * time.Millisecond

// turn bounds one wait, so that the end of the context is noticed.
const turn = 500 * time.Millisecond

// Watch sends on changed, which must have room for one event, whenever nf_tables of this network namespace changed, until ctx
// ends. It returns at once with an error where the kernel reports nothing.
func Watch(ctx context.Context, changed chan<- struct{}) error {
	fd, err := subscribe()
	if err != nil {
		return fmt.Errorf("listen for nf_tables changes: %w", err)
	}
	go func() {
		defer func() { _ = unix.Close(fd) }()
		for ctx.Err() == nil {
			if !wait(fd) {
				continue
			}
			drain(fd)
			select {
			case changed <- struct{}{}:
			default:
			}
			pause(ctx, quiet)
		}
	}()
	return nil
}

func subscribe() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return -1, err
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.NFNLGRP_NFTABLES)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// wait reports whether there is something to read.
func wait(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}} //nolint:gosec // a descriptor
	n, err := unix.Poll(fds, int(turn.Milliseconds()))
	return err == nil && n > 0
}

// drain throws away what is in the buffer. ENOBUFS says that there was more than fits, which is news all the same.
func drain(fd int) {
	buffer := make([]byte, 1<<16)
	for {
		_, _, err := unix.Recvfrom(fd, buffer, 0)
		if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
