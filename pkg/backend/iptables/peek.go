package iptables

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
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
	messages, err := nftRules(family, natTable, chain)
	return slices.ContainsFunc(messages, func(m netlink.Message) bool { return bytes.Contains(m.Data, []byte(text)) }), err
}

// nftRules reads a chain's rules as the kernel sends them; wherever iptables-nft keeps a comment, it is in there.
func nftRules(family policy.Family, table, chain string) ([]netlink.Message, error) {
	attributes, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: append([]byte(table), 0)},
		{Type: unix.NFTA_RULE_CHAIN, Data: append([]byte(chain), 0)},
	})
	if err != nil {
		return nil, fmt.Errorf("ask for the rules of %s: %w", chain, err)
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("ask for the rules of %s: %w", chain, err)
	}
	defer func() { _ = conn.Close() }()
	header := []byte{byte(nftTable(family, table).Family), unix.NFNETLINK_V0, 0, 0}
	messages, err := conn.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE),
			Flags: netlink.Request | netlink.Dump,
		},
		Data: append(header, attributes...),
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return messages, err
}

func nftTable(family policy.Family, name string) *nftables.Table {
	if family == policy.IPv6 {
		return &nftables.Table{Name: name, Family: nftables.TableFamilyIPv6}
	}
	return &nftables.Table{Name: name, Family: nftables.TableFamilyIPv4}
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
