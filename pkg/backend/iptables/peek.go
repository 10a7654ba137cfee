package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// What can be asked of the kernel directly costs no process and waits for no lock. It answers yes or no; whatever is written
// or compared goes through iptables.

// mentions reports whether a rule of a chain has text in its comment. An error says that this cannot be told.
func mentions(kind backend.Kind, family policy.Family, chain, text string) (bool, error) {
	if kind == backend.IPTablesLegacy {
		entries, err := legacyEntries(family, natTable)
		return bytes.Contains(entries, []byte(text)), err
	}
	rules, err := nftRules(family, chain)
	return slices.ContainsFunc(rules, func(r []byte) bool { return bytes.Contains(r, []byte(text)) }), err
}

// nftRoots finds the known root rules in POSTROUTING by comment and target, each as often as it stands there.
func nftRoots(family policy.Family, known ...rule) ([]rule, error) {
	messages, err := nftRules(family, postrouting)
	var found []rule
	for _, message := range messages {
		var best rule
		for _, r := range known {
			comment := r.value("--comment")
			if bytes.Contains(message, []byte(comment)) && bytes.Contains(message, []byte(r.target()+"\x00")) &&
				len(comment) > len(best.value("--comment")) { // a comment in literal quotes holds the one without
				best = r
			}
		}
		if best != nil {
			found = append(found, best)
		}
	}
	return found, err
}

// nftHasRules reports whether a chain of table nat is there and not empty.
func nftHasRules(family policy.Family, chain string) (bool, error) {
	conn, err := nfnl.DialFamily(nfFamily(family))
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close() }()
	return conn.HasRules(natTable, chain)
}

// nftRules reads a chain of table nat as the kernel holds it, again where somebody changed the ruleset meanwhile.
func nftRules(family policy.Family, chain string) (rules [][]byte, err error) {
	conn, err := nfnl.DialFamily(nfFamily(family))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	for range peekAttempts {
		if rules, err = conn.RawRules(natTable, chain); !errors.Is(err, nfnl.ErrInterrupted) {
			return rules, err
		}
	}
	return rules, err
}

// peekAttempts is for readings that others interrupt. One takes microseconds where they take milliseconds.
const peekAttempts = 100

// Generation returns the number that every change of nf_tables increments, iptables-nft's changes included; iptables-legacy
// counts nothing.
func (b *Backend) Generation(context.Context) (uint32, error) {
	if b.kind != backend.IPTablesNFT {
		return 0, errNotCounted
	}
	conn, err := nfnl.Dial()
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	return conn.Settled()
}

// Forget has nothing to drop: every Observe reads.
func (b *Backend) Forget() {}

var errNotCounted = errors.New("ip_tables does not count its changes")

func nfFamily(family policy.Family) uint8 {
	if family == policy.IPv6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

// legacyHasChain looks for the entry that starts a user's chain: an ERROR target (xt_error_target) with the chain's name.
func legacyHasChain(family policy.Family, table, chain string) bool {
	const targetName = 30 // of xt_entry_target, the revision included
	start := make([]byte, targetName, targetName+len(chain)+1)
	copy(start, "ERROR")
	entries, err := legacyEntries(family, table)
	return err == nil && bytes.Contains(entries, append(append(start, chain...), 0))
}

// The socket options of ip_tables and ip6_tables (linux/netfilter_ipv4/ip_tables.h); those of IPv6 have the same numbers.
const (
	soGetInfo    = 64
	soGetEntries = 65
)

type legacyInfo struct {
	name       [32]byte
	_          [11]uint32 // hooks and underflows
	numEntries uint32
	size       uint32
}

// legacyEntries reads a table that is there, in one piece, as the kernel holds it. A table that changes meanwhile is an error.
func legacyEntries(family policy.Family, table string) ([]byte, error) {
	domain, level := unix.AF_INET, unix.IPPROTO_IP
	if family == policy.IPv6 {
		domain, level = unix.AF_INET6, unix.IPPROTO_IPV6
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil, fmt.Errorf("open a socket to read table %s: %w", table, err)
	}
	defer func() { _ = unix.Close(fd) }()
	var info legacyInfo
	copy(info.name[:], table)
	if err := getsockopt(fd, level, soGetInfo, unsafe.Pointer(&info), unsafe.Sizeof(info)); err != nil {
		return nil, fmt.Errorf("size of table %s: %w", table, err)
	}
	var header struct {
		name    [32]byte
		size    uint32
		entries [0]uint64
	}
	offset := unsafe.Offsetof(header.entries)
	buffer := make([]byte, offset+uintptr(info.size))
	copy(buffer, info.name[:])
	*(*uint32)(unsafe.Pointer(&buffer[unsafe.Offsetof(header.size)])) = info.size
	if err := getsockopt(fd, level, soGetEntries, unsafe.Pointer(&buffer[0]), uintptr(len(buffer))); err != nil {
		return nil, fmt.Errorf("read table %s: %w", table, err)
	}
	return buffer[offset:], nil
}

func getsockopt(fd, level, option int, value unsafe.Pointer, length uintptr) error {
	size := uint32(length)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option), uintptr(value), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
