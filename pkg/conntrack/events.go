package conntrack

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Kind is what happened to a connection.
type Kind uint8

// The kinds of events.
const (
	Began Kind = iota + 1
	Ended
)

// ErrLost says that the kernel had more events than the socket has room for, and dropped some. Reading goes on.
var ErrLost = errors.New("the kernel dropped events of connections")

// Events reports connections, as they begin and end. It is not for concurrent use.
type Events struct {
	socket *socket
	flow   Flow
	all    bool // also those whose source is not translated
}

// roomForEvents is the socket's buffer. An event takes about 1 KiB of it, so this is 16,000 events: at 20,000 connections a second
// the reader may stand still for 0.4 s.
const roomForEvents = 16 << 20

// Listen opens a socket in the network namespace of the calling thread, for connections whose source is translated. By a filter on
// it the kernel drops events of others before they take room or wake anybody.
func Listen() (*Events, error) {
	return listen((*socket).filter, unix.NFNLGRP_CONNTRACK_NEW, unix.NFNLGRP_CONNTRACK_DESTROY)
}

// ListenAll is Listen for every connection that begins.
func ListenAll() (*Events, error) {
	e, err := listen(func(*socket) error { return nil }, unix.NFNLGRP_CONNTRACK_NEW)
	if e != nil {
		e.all = true
	}
	return e, err
}

func listen(filter func(*socket) error, groups ...int) (*Events, error) {
	s, err := dial()
	if err != nil {
		return nil, err
	}
	if err := s.subscribe(filter, groups...); err != nil {
		s.close()
		return nil, fmt.Errorf("listen for connections: %w", err)
	}
	return &Events{socket: s}, nil
}

func (s *socket) subscribe(filter func(*socket) error, groups ...int) error {
	// To subscribe loads the module that reports connections, too, but does not wait for it, so it is asked for something first.
	_ = s.ask(msgGetStatsPC, unix.AF_UNSPEC, nil, func([]byte) {})
	if err := unix.SetNonblock(s.fd, true); err != nil {
		return err
	}
	if err := filter(s); err != nil {
		return fmt.Errorf("attach a filter: %w", err)
	}
	if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, roomForEvents) != nil {
		_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, roomForEvents)
	}
	for _, group := range groups {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
			return err
		}
	}
	return nil
}

// filter lets events pass that have IPS_SRC_NAT in their status. An event is one message in a datagram of its own. A message
// without a status passes too, and is judged by who reads it.
func (s *socket) filter() error {
	const findAttribute = 0xfffff000 + 12 // SKF_AD_OFF + SKF_AD_NLATTR: A becomes the offset of attribute X, looked for from offset A
	const pass = 1 << 20                  // bytes, more than any event has
	filters := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_IMM, K: messageHeader + familyHeader},
		{Code: unix.BPF_LDX | unix.BPF_IMM, K: ctaStatus},
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: findAttribute},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 0, Jt: 3}, // no such attribute: pass
		{Code: unix.BPF_MISC | unix.BPF_TAX},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_IND, K: attrHeader},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: SourceNAT, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: pass},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	return unix.SetsockoptSockFprog(s.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filters)), Filter: &filters[0]})
}

// Close closes the socket.
func (e *Events) Close() { e.socket.close() }

// FD is for poll(2), with other descriptors.
func (e *Events) FD() int { return e.socket.fd }

// Next reads one event without waiting, and returns false when there is none. The flow is valid until the next call.
func (e *Events) Next() (kind Kind, flow *Flow, ok bool, err error) {
	for {
		datagram, err := e.socket.receive()
		switch {
		case errors.Is(err, unix.EAGAIN):
			return 0, nil, false, nil
		case errors.Is(err, unix.ENOBUFS):
			return 0, nil, false, ErrLost
		case err != nil:
			return 0, nil, false, err
		}
		typ, body, _, ok := message(datagram)
		if !ok || len(body) < familyHeader || typ != msgNew && typ != msgDelete {
			continue
		}
		e.flow.decode(body[familyHeader:])
		if !e.all && !e.flow.Translated() {
			continue
		}
		if typ == msgNew {
			return Began, &e.flow, true, nil
		}
		return Ended, &e.flow, true, nil
	}
}

// Wait returns when there is an event, when one of the other descriptors can be read, or after the time.
func (e *Events) Wait(limit time.Duration, others ...int) {
	fds := []unix.PollFd{{Fd: int32(e.socket.fd), Events: unix.POLLIN}} //nolint:gosec // a descriptor
	for _, fd := range others {
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}) //nolint:gosec // a descriptor
	}
	_, _ = unix.Poll(fds, int(limit.Milliseconds()))
}
