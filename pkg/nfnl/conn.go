// Package nfnl speaks the nf_tables part of netlink: transactions, single reads and dumps, with tables, chains, sets,
// elements and rules as plain values.
//
// It stands in place of github.com/google/nftables for what that library does not offer: a transaction that the kernel refuses
// when anything changed since a reading (NFNL_BATCH_GENID), one acknowledgement per transaction, reading one element, elements
// without an allocation for each attribute (at 10,000 prefixes the library needs 1.4 times the CPU to write a set and 8 times
// to read it), and a plugin that stays small.
//
// Two netlink libraries are linked into the agent: this one for everything of nf_tables, and github.com/vishvananda/netlink for
// connection tracking, interfaces, routes and ipsets (pkg/flows, pkg/conflicts, pkg/ranges), which it knows well and this one
// refuses. The plugin has this one alone.
//
// It refuses to know what the objects are for, it never retries, and it starts no goroutine: a socket belongs to the network
// namespace of the thread that opened it, and to the caller who has it.
package nfnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is one netlink socket. Close waits for one RCU grace period where a transaction of it deleted something, so a caller
// opens one for everything that it has to do. It is not for concurrent use.
type Conn struct {
	fd       int
	family   uint8 // of the tables that are read
	sequence uint32
	buffer   []byte
	place    place // where it was borrowed
	unread   bool  // the rest of an answer is in it, so that it is of no use but to be closed
	asked    bool  // the kernel has nf_tables
}

// receiveSize holds the largest datagram of a dump: the kernel fills at most 32 KiB.
const receiveSize = 64 << 10

// patience bounds the wait for an answer that never comes. All requests are handled while they are sent, so this is no limit
// for slow ones.
const patience = 10 * time.Second

// Dial opens a socket in the network namespace of the calling thread, for inet tables.
func Dial() (*Conn, error) { return DialFamily(unix.NFPROTO_INET) }

// DialFamily is Dial for reading the tables of another family (NFPROTO_IPV4, NFPROTO_IPV6), such as those of iptables-nft.
// Transactions name their own (Batch.In).
func DialFamily(family uint8) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	c := &Conn{fd: fd, family: family, sequence: 1, buffer: make([]byte, receiveSize)}
	if err := c.prepare(); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("prepare netlink socket: %w", err)
	}
	return c, nil
}

// In makes the readings that follow be of the tables of another family.
func (c *Conn) In(family uint8) { c.family = family }

func (c *Conn) prepare() error {
	timeout := unix.NsecToTimeval(int64(patience))
	if err := unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return err
	}
	// Without this every refusal carries back the message that it refuses. Linux before 4.3 does not know it.
	_ = unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return unix.Bind(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// Close closes the socket.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// Namespace returns the number of the socket's network namespace, which no other has had since the machine booted. Linux
// before 5.14 does not know it.
func (c *Conn) Namespace() (uint64, bool) {
	cookie, err := unix.GetsockoptUint64(c.fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	return cookie, err == nil
}

// defaultSendBuffer is the kernel's net.core.wmem_default on all common machines, less some room for its bookkeeping.
const defaultSendBuffer = 200 << 10

// send hands over one datagram. A transaction must be one, so the buffer grows with it; the limit for unprivileged senders
// does not apply to whoever may change the ruleset.
func (c *Conn) send(datagram []byte) error {
	if len(datagram) > defaultSendBuffer {
		if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, len(datagram)*2); err != nil {
			return fmt.Errorf("room for %d bytes: %w", len(datagram), err)
		}
	}
	kernel := &unix.SockaddrNetlink{Family: unix.AF_NETLINK} // one for each call: the system call's wrapper writes to it
	return retryInterrupted(func() error { return unix.Sendto(c.fd, datagram, 0, kernel) })
}

// receive returns the messages of one datagram. They are valid until the next call.
func (c *Conn) receive() ([]byte, error) {
	n := 0
	err := retryInterrupted(func() (err error) {
		n, _, err = unix.Recvfrom(c.fd, c.buffer, unix.MSG_TRUNC) // the full length, also where it does not fit
		return err
	})
	if err == nil && n > len(c.buffer) {
		return nil, fmt.Errorf("%w: %d bytes, and there is room for %d", errTruncated, n, len(c.buffer))
	}
	return c.buffer[:max(n, 0)], err
}

// errTruncated is an answer whose end is lost. Going on with its beginning would be to take a part of a set for all of it.
var errTruncated = errors.New("the kernel's answer is longer than any that it is known to send")

func retryInterrupted(call func() error) error {
	for {
		if err := call(); err != unix.EINTR { //nolint:errorlint // a system call's own return value
			return err
		}
	}
}

// message is one netlink message as received.
type message struct {
	typ, flags uint16
	sequence   uint32
	body       []byte
}

// next splits the first message off a datagram.
func next(datagram []byte) (m message, rest []byte, ok bool) {
	if len(datagram) < messageHeader {
		return message{}, nil, false
	}
	size := int(binary.NativeEndian.Uint32(datagram))
	if size < messageHeader || size > len(datagram) {
		return message{}, nil, false
	}
	m = message{
		typ:      binary.NativeEndian.Uint16(datagram[4:]),
		flags:    binary.NativeEndian.Uint16(datagram[6:]),
		sequence: binary.NativeEndian.Uint32(datagram[8:]),
		body:     datagram[messageHeader:size],
	}
	return m, datagram[min(aligned(size), len(datagram)):], true
}

// errno reads the result out of an acknowledgement or out of the end of a dump; 0 is success.
func (m message) errno() unix.Errno {
	if len(m.body) < 4 {
		return 0
	}
	return unix.Errno(-int32(binary.NativeEndian.Uint32(m.body)))
}

// attributes returns what follows the family header.
func (m message) attributes() []byte {
	if len(m.body) < familyHeader {
		return nil
	}
	return m.body[familyHeader:]
}
