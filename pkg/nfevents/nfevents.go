// Package nfevents reports that nf_tables changed, by the kernel's notification group. iptables-nft is noticed too, since
// its rules are nf_tables rules; iptables-legacy is not, because ip_tables reports nothing.
//
// It refuses to say what changed, since looking at ip-masq's own rules tells that better; of each notification it reads no more than
// the names that it needs to tell who wrote into ip-masq's chains.
package nfevents

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
)

// quiet is how long the socket is left alone after an event. What comes meanwhile fills its buffer and then is dropped by the
// kernel, so a program that writes thousands of rules a second costs us ten wake-ups.
const quiet = 100 * time.Millisecond

// turn bounds one wait, so that the end of the context is noticed.
const turn = 500 * time.Millisecond

// Watcher watches nf_tables of one network namespace.
type Watcher struct {
	fd      int
	changed chan<- struct{}
	ours    func(table, chain string) bool

	mu      sync.Mutex
	closed  bool
	touched bool // the transaction that is being read is about ip-masq's objects
	lost    bool // a part of it did not fit into the buffer
	writers []nfnl.Writer
}

// keptWriters bounds what is remembered between two calls of Writers: who writes that often is in it anyway.
const keptWriters = 16

// Watch sends on changed, which must have room for one event, whenever nf_tables of this network namespace changed, until ctx
// ends. Of transactions about objects for which ours is true it remembers who wrote them; the chain is empty for what is in none.
// It returns at once with an error where the kernel reports nothing.
func Watch(ctx context.Context, changed chan<- struct{}, ours func(table, chain string) bool) (*Watcher, error) {
	fd, err := subscribe()
	if err != nil {
		return nil, fmt.Errorf("listen for nf_tables changes: %w", err)
	}
	w := &Watcher{fd: fd, changed: changed, ours: ours}
	go func() {
		defer w.close()
		for ctx.Err() == nil {
			if !wait(fd) {
				continue
			}
			w.mu.Lock()
			w.drain()
			w.mu.Unlock()
			pause(ctx, quiet)
		}
	}()
	return w, nil
}

// Writers returns who wrote ip-masq's objects since the last call, in their order, and forgets it. The kernel queues a transaction's
// notifications before the call that sent it returns, so all that is in the kernel by now is in it.
func (w *Watcher) Writers() []nfnl.Writer {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.drain()
	}
	writers := w.writers
	w.writers = nil
	return writers
}

func (w *Watcher) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	_ = unix.Close(w.fd)
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

// drain reads what is in the buffer, and sends an event if that is anything. ENOBUFS says that there was more than fits, which is
// news all the same; who wrote that is not known.
func (w *Watcher) drain() {
	buffer := make([]byte, 1<<16)
	for news := false; ; {
		n, _, err := unix.Recvfrom(w.fd, buffer, 0)
		switch {
		case err == nil:
			news = true
			w.read(buffer[:n])
		case errors.Is(err, unix.ENOBUFS):
			news, w.lost, w.touched = true, true, false
		case !errors.Is(err, unix.EINTR):
			if news {
				select {
				case w.changed <- struct{}{}:
				default:
				}
			}
			return
		}
	}
}

// read takes one datagram in. Of a transaction that lost a part nothing is known until the next one.
func (w *Watcher) read(datagram []byte) {
	for notice := range nfnl.Notices(datagram) {
		if !notice.End {
			w.touched = w.touched || w.ours(notice.Table, notice.Chain)
			continue
		}
		if w.touched && !w.lost && len(w.writers) < keptWriters && notice.Writer.Name != "" {
			w.writers = append(w.writers, notice.Writer)
		}
		w.touched, w.lost = false, false
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
