package iptables

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// untouched reports whether reading would create what it reads: iptables-legacy instantiates a table by looking at it.
func untouched(kind backend.Kind, family policy.Family, table string) bool {
	return kind == backend.IPTablesLegacy && !LegacyTable(family, table)
}

// LegacyTable reports whether an ip_tables table is instantiated in this network namespace. The kernel lists them.
func LegacyTable(family policy.Family, table string) bool {
	name := "ip_tables_names"
	if family == policy.IPv6 {
		name = "ip6_tables_names"
	}
	data, err := os.ReadFile("/proc/thread-self/net/" + name)
	return err == nil && slices.Contains(strings.Fields(string(data)), table)
}

// legacyNames reports whether the table that is there has a text in a comment. An error says that this cannot be told.
func legacyNames(family policy.Family, text string) (bool, error) {
	entries, err := legacyEntries(family, natTable)
	return bytes.Contains(entries, []byte(text)), err
}

func legacyHasChain(family policy.Family, table, chain string) bool {
	if !LegacyTable(family, table) {
		return false
	}
	entries, err := legacyEntries(family, table)
	_, there := legacyChain(family, entries, chain)
	return err == nil && there
}

// legacyChain counts the rules of a user's chain. It starts with an entry whose target is ERROR (xt_error_target) and that has
// the chain's name, and it ends with a RETURN, which is not counted, before the next such entry.
func legacyChain(family policy.Family, entries []byte, chain string) (rules int, there bool) {
	for entry := range legacyWalk(family, entries) {
		target := entry.data[entry.target:]
		isStart := bytes.HasPrefix(target[min(2, len(target)):], []byte("ERROR\x00"))
		switch {
		case isStart && there:
			return rules - 1, true
		case isStart:
			const name = 32 // behind xt_entry_target
			found, _, _ := bytes.Cut(target[min(name, len(target)):], []byte{0})
			there = string(found) == chain
		case there:
			rules++
		}
	}
	return max(rules-1, 0), there
}

// legacyChains lists the users' chains of a table.
func legacyChains(family policy.Family, entries []byte) (names []string) {
	for entry := range legacyWalk(family, entries) {
		if name, info := entry.jump(); name == "ERROR" && string(info) != "ERROR" { // the table's own last entry
			names = append(names, string(info))
		}
	}
	return names
}

// legacyEntry is one rule, from the first byte of its addresses to the last of its target.
type legacyEntry struct {
	data     []byte
	target   int // where the target begins
	comefrom int // the kernel's own notes, four bytes
	counters int // two numbers of eight bytes
}

// legacyWalk goes through a table (linux/netfilter_ipv4/ip_tables.h, linux/netfilter_ipv6/ip6_tables.h).
func legacyWalk(family policy.Family, entries []byte) iter.Seq[legacyEntry] {
	addresses := 84 // the size of ipt_ip
	if family == policy.IPv6 {
		addresses = 136
	}
	header := (addresses+12+7)&^7 + 16
	return func(yield func(legacyEntry) bool) {
		for len(entries) >= header {
			target := int(binary.NativeEndian.Uint16(entries[addresses+4:]))
			size := int(binary.NativeEndian.Uint16(entries[addresses+6:]))
			if size < header || size > len(entries) || target > size {
				return
			}
			if !yield(legacyEntry{entries[:size], target, addresses + 8, header - 16}) {
				return
			}
			entries = entries[size:]
		}
	}
}

// legacyContent is what a table says: its entries without their counters, chain by chain in their order. Two readings of the
// same rules are equal.
func legacyContent(family policy.Family, entries []byte) []byte {
	d := bytes.Clone(entries) // the caller may search it
	for entry := range legacyWalk(family, d) {
		clear(entry.data[entry.comefrom : entry.comefrom+4])
		clear(entry.data[entry.counters : entry.counters+16])
	}
	return d
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

// legacyEntries reads a table that is there, in one piece, as the kernel holds it; again where it changed meanwhile.
func legacyEntries(family policy.Family, table string) (entries []byte, err error) {
	for range legacyAttempts {
		if entries, err = legacyEntriesOnce(family, table); err == nil {
			return entries, nil
		}
	}
	return nil, err
}

// legacyAttempts is for a table that changes its size between the two questions that reading it takes.
const legacyAttempts = 5

func legacyEntriesOnce(family policy.Family, table string) ([]byte, error) {
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
