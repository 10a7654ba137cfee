package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Table lists connections again and again over one socket, and deletes them. It is not for concurrent use.
type Table struct {
	socket *socket
	flow   Flow
}

// Open opens a socket in the network namespace of the calling thread.
func Open() (*Table, error) {
	s, err := dial()
	if err != nil {
		return nil, err
	}
	return &Table{socket: s}, nil
}

// Close closes the socket.
func (t *Table) Close() { t.socket.close() }

// Translated visits every connection whose source is translated, of both families. The kernel leaves out the others (Linux 5.15;
// an older one sends them, and they are left out here). What visit is handed is valid until it returns.
//
// The kernel walks while connections come and go: one that is there all the time is visited once at least.
func (t *Table) Translated(visit func(*Flow)) error {
	filter := appendUint32(appendUint32(nil, ctaStatus, SourceNAT), ctaStatusMask, SourceNAT)
	return t.list(unix.AF_UNSPEC, filter, func(f *Flow) {
		if f.Translated() {
			visit(f)
		}
	})
}

// All visits every connection of a family.
func (t *Table) All(family uint8, visit func(*Flow)) error { return t.list(family, nil, visit) }

// From visits the connections that an address began. Of IPv4 the kernel leaves out the others (Linux 5.8); an older one does not
// know the filter and sends them, too, which visit has to expect. Of IPv6 it gets all: there the kernel's filter leaves out just
// those that it is asked for (ctnetlink_filter_match_tuple takes equal addresses for different ones, up to Linux 6.18 at least).
func (t *Table) From(source netip.Addr, visit func(*Flow)) error {
	if source.Is6() {
		return t.list(unix.AF_INET6, nil, visit)
	}
	address := appendAttr(nil, ipv4Source, source.AsSlice())
	filter := appendAttr(nil, ctaOriginal|unix.NLA_F_NESTED, appendAttr(nil, tupleIP|unix.NLA_F_NESTED, address))
	flags := appendAttr(nil, filterOriginal, binary.NativeEndian.AppendUint32(nil, filterSource))
	return t.list(unix.AF_INET, appendAttr(filter, ctaFilter|unix.NLA_F_NESTED, flags), visit)
}

func (t *Table) list(family uint8, filter []byte, visit func(*Flow)) error {
	err := t.socket.ask(msgGet, family, filter, func(attrs []byte) {
		t.flow.decode(attrs)
		visit(&t.flow)
	})
	if err != nil {
		return fmt.Errorf("list tracked connections: %w", err)
	}
	return nil
}

// Entry names a connection that was listed, after the list.
type Entry struct {
	family uint8
	attrs  []byte
}

// Entry is the connection's. It is for the function that a list visits with.
func (f *Flow) Entry() Entry {
	e := Entry{family: unix.AF_INET}
	if f.Original.Src.Addr().Is6() {
		e.family = unix.AF_INET6
	}
	for typ, value, rest, ok := attribute(f.attrs); ok; typ, value, rest, ok = attribute(rest) {
		switch typ {
		case ctaOriginal:
			e.attrs = appendAttr(e.attrs, typ|unix.NLA_F_NESTED, value)
		case ctaID, ctaZone:
			e.attrs = appendAttr(e.attrs, typ, value)
		}
	}
	return e
}

// Delete ends a connection. It returns false where that is over: the kernel compares the number, too, so that a later connection of
// the same addresses and ports stays.
func (t *Table) Delete(e Entry) (bool, error) {
	err := t.socket.send(msgDelete, unix.NLM_F_ACK, e.family, e.attrs)
	if err == nil {
		err = t.socket.await(func([]byte) {})
	}
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("end a tracked connection: %w", err)
	}
	return true, nil
}

func appendUint32(b []byte, typ uint16, value uint32) []byte {
	return appendAttr(b, typ, binary.BigEndian.AppendUint32(nil, value))
}

// appendAttr writes one attribute and pads it.
func appendAttr(b []byte, typ uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(attrHeader+len(value))) //nolint:gosec // some bytes
	b = append(binary.NativeEndian.AppendUint16(b, typ), value...)
	return append(b, make([]byte, -len(b)&3)...)
}

// Counters are what the kernel counted of this network namespace since it was made.
type Counters struct {
	InsertFailed  uint64 // new connections dropped because another one had the same addresses and ports
	Drop          uint64 // packets dropped because there was no room for their connection
	EarlyDrop     uint64 // connections given up to make room for others
	ClashResolved uint64 // connections that two packets made at the same time, and that became one
}

// Stats reads the counters, which are the sums over all processors.
func Stats() (Counters, error) {
	// enum ctattr_stats_cpu
	const insertFailed, drop, earlyDrop, clashResolve = 9, 10, 11, 14
	s, err := dial()
	if err != nil {
		return Counters{}, err
	}
	defer s.close()
	var c Counters
	err = s.ask(msgGetStatsPC, unix.AF_UNSPEC, nil, func(attrs []byte) {
		for typ, value, rest, ok := attribute(attrs); ok; typ, value, rest, ok = attribute(rest) {
			switch typ {
			case insertFailed:
				c.InsertFailed += number(value)
			case drop:
				c.Drop += number(value)
			case earlyDrop:
				c.EarlyDrop += number(value)
			case clashResolve:
				c.ClashResolved += number(value)
			}
		}
	})
	if err != nil {
		return Counters{}, fmt.Errorf("read the counters of connection tracking: %w", err)
	}
	return c, nil
}
