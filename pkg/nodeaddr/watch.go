package nodeaddr

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// turn bounds one wait, so that the end of the context is noticed.
const turn = 500 // milliseconds

// Watch calls changed when an address came, went, or changed its state, until ctx ends; the address is invalid where the kernel
// had more to report than the socket has room for. It returns at once, with an error where the kernel reports nothing. Every pod's
// interface has a link-local address, which is not reported.
func Watch(ctx context.Context, changed func(netip.Addr)) error {
	fd, err := open()
	if err != nil {
		return fmt.Errorf("listen for the node's addresses: %w", err)
	}
	err = errors.Join(
		unix.SetNonblock(fd, true),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.RTNLGRP_IPV4_IFADDR),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.RTNLGRP_IPV6_IFADDR),
	)
	if err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("listen for the node's addresses: %w", err)
	}
	go func() {
		defer func() { _ = unix.Close(fd) }()
		buffer := make([]byte, 64<<10)
		for ctx.Err() == nil {
			if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, turn); err == nil && n > 0 { //nolint:gosec // a descriptor
				read(fd, buffer, changed)
			}
		}
	}()
	return nil
}

// read takes in what is queued.
func read(fd int, buffer []byte, changed func(netip.Addr)) {
	for {
		size, _, err := unix.Recvfrom(fd, buffer, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOBUFS):
			changed(netip.Addr{})
			continue
		case err != nil:
			return
		}
		for typ, body := range messages(buffer[:size]) {
			if address, _ := parse(body); (typ == unix.RTM_NEWADDR || typ == unix.RTM_DELADDR) && address.IsValid() && meant(address) {
				changed(address)
			}
		}
	}
}
