package nfnl

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Journal collects the kernel's notifications about nf_tables. It tells which sets changed since it was last asked, so that the
// others need not be read again.
type Journal struct {
	fd     int
	buffer []byte
}

// Listen opens a journal for the network namespace of the calling thread.
func Listen() (*Journal, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.NFNLGRP_NFTABLES)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("listen for nf_tables changes: %w", err)
	}
	return &Journal{fd, make([]byte, receiveSize)}, nil
}

// Close closes the socket.
func (j *Journal) Close() error { return unix.Close(j.fd) }

// Changes visits the sets of inet tables that were created, deleted or had elements added or removed since the last call; the
// name of the set is empty where a whole table came or went. It is complete for every transaction up to a generation that Settled
// returned before the call: the kernel queues a transaction's notifications before it lets the next one in. It reports
// false where notifications were lost, because there were more than fit.
func (j *Journal) Changes(visit func(table, set string)) (complete bool) {
	complete = true
	for {
		n, _, err := unix.Recvfrom(j.fd, j.buffer, unix.MSG_TRUNC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return complete
		case errors.Is(err, unix.ENOBUFS), err == nil && n > len(j.buffer):
			complete = false
			continue
		case err != nil:
			return false
		}
		for m, rest, ok := next(j.buffer[:n]); ok; m, rest, ok = next(rest) {
			if table, set, ok := changedSet(m); ok {
				visit(table, set)
			}
		}
	}
}

// changedSet reads a notification; ok is false where it is about something else than tables and sets of family inet.
func changedSet(m message) (table, set string, ok bool) {
	if len(m.body) < familyHeader || m.typ>>8 != unix.NFNL_SUBSYS_NFTABLES || m.body[0] != unix.NFPROTO_INET {
		return "", "", false
	}
	switch attrs := m.attributes(); m.typ & 0xff {
	case unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE:
		return findString(attrs, unix.NFTA_TABLE_NAME), "", true
	case unix.NFT_MSG_NEWSET, unix.NFT_MSG_DELSET:
		return findString(attrs, unix.NFTA_SET_TABLE), findString(attrs, unix.NFTA_SET_NAME), true
	case unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM:
		return findString(attrs, unix.NFTA_SET_ELEM_LIST_TABLE), findString(attrs, unix.NFTA_SET_ELEM_LIST_SET), true
	}
	return "", "", false
}
