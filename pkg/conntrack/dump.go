package conntrack

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// Table lists connections again and again over one socket. It is not for concurrent use.
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
	err := t.socket.ask(msgGet, unix.AF_UNSPEC, filter, func(attrs []byte) {
		if t.flow.decode(attrs); t.flow.Translated() {
			visit(&t.flow)
		}
	})
	if err != nil {
		return fmt.Errorf("list tracked connections: %w", err)
	}
	return nil
}

func appendUint32(b []byte, typ uint16, value uint32) []byte {
	b = binary.NativeEndian.AppendUint16(b, attrHeader+4)
	b = binary.NativeEndian.AppendUint16(b, typ)
	return binary.BigEndian.AppendUint32(b, value)
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
