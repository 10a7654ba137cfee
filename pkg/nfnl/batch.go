package nfnl

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// Batch is a transaction: the kernel makes all of its changes visible at once, or none.
type Batch struct {
	datagram []byte
	steps    []string // what each message does; the index is its sequence number
	last     int      // where the last message starts
	family   uint8    // of the tables that are changed
}

// NewBatch returns an empty transaction.
func NewBatch() *Batch { return newBatch(nil) }

// NewGuardedBatch returns a transaction that fails with ERESTART unless the ruleset's generation is the given one, so that
// what was read at that generation is still true when the transaction takes effect.
func NewGuardedBatch(generation uint32) *Batch {
	return newBatch(appendUint32(nil, unix.NFNL_BATCH_GENID, generation))
}

func newBatch(guard []byte) *Batch {
	b := &Batch{family: unix.NFPROTO_INET}
	b.frame("begin", unix.NFNL_MSG_BATCH_BEGIN, guard)
	return b
}

// In makes the changes that follow be of tables of another family (NFPROTO_IPV4, NFPROTO_IPV6), such as those of iptables-nft.
func (b *Batch) In(family uint8) { b.family = family }

// Empty reports whether there is nothing to commit.
func (b *Batch) Empty() bool { return len(b.steps) == 1 }

// Steps describes the changes, in order.
func (b *Batch) Steps() []string { return b.steps[1:] }

// frame appends a message that bounds the batch. Its header names the subsystem in place of a resource.
func (b *Batch) frame(step string, typ uint16, attrs []byte) {
	b.begin(step, typ, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	b.datagram = append(b.datagram, attrs...)
	b.end()
}

// add appends a change of an object in a table of the family that In named, or of an inet table.
func (b *Batch) add(step string, typ, flags uint16, encode func([]byte) []byte) {
	b.begin(step, typ|unix.NFNL_SUBSYS_NFTABLES<<8, flags, b.family, 0)
	b.datagram = encode(b.datagram)
	b.end()
}

func (b *Batch) begin(step string, typ, flags uint16, family byte, resource uint16) {
	b.last = len(b.datagram)
	b.datagram = appendHeader(b.datagram, typ, flags|unix.NLM_F_REQUEST, uint32(len(b.steps)), family, resource)
	b.steps = append(b.steps, step)
}

func (b *Batch) end() {
	binary.NativeEndian.PutUint32(b.datagram[b.last:], uint32(len(b.datagram)-b.last))
}

// appendHeader appends both headers, with a length that is still to be set.
func appendHeader(d []byte, typ, flags uint16, sequence uint32, family byte, resource uint16) []byte {
	d = binary.NativeEndian.AppendUint32(d, 0)
	d = binary.NativeEndian.AppendUint16(d, typ)
	d = binary.NativeEndian.AppendUint16(d, flags)
	d = binary.NativeEndian.AppendUint32(d, sequence)
	d = binary.NativeEndian.AppendUint32(d, 0)
	d = append(d, family, unix.NFNETLINK_V0)
	return binary.BigEndian.AppendUint16(d, resource)
}

// Commit sends the transaction and waits for its result. It uses up the batch. An error is a *Refused where the kernel
// refused it, and then nothing has changed.
func (c *Conn) Commit(b *Batch) error {
	if b.Empty() {
		return nil
	}
	// Only the last change asks for an acknowledgement: it comes after the errors of all others.
	flags := binary.NativeEndian.Uint16(b.datagram[b.last+6:])
	binary.NativeEndian.PutUint16(b.datagram[b.last+6:], flags|unix.NLM_F_ACK)
	first, last := c.sequence, c.sequence+uint32(len(b.steps))-1
	b.frame("end", unix.NFNL_MSG_BATCH_END, nil)
	c.sequence += uint32(len(b.steps))
	renumber(b.datagram, first)
	if err := c.send(b.datagram); err != nil {
		return fmt.Errorf("send transaction: %w", err)
	}
	return c.result(b.steps, first, last)
}

// renumber turns the sequence numbers of a batch into those of the socket.
func renumber(datagram []byte, first uint32) {
	for len(datagram) >= messageHeader {
		size := int(binary.NativeEndian.Uint32(datagram))
		sequence := binary.NativeEndian.Uint32(datagram[8:])
		binary.NativeEndian.PutUint32(datagram[8:], sequence+first)
		datagram = datagram[min(aligned(size), len(datagram)):]
	}
}

// result waits for the acknowledgement of the last change, or for an error of the batch as a whole, which is the only answer
// then. Answers to earlier batches are skipped.
func (c *Conn) result(steps []string, first, last uint32) error {
	var failure error
	for {
		datagram, err := c.receive()
		if err != nil {
			return fmt.Errorf("receive acknowledgement: %w", err)
		}
		for m, rest, ok := next(datagram); ok; m, rest, ok = next(rest) {
			if m.typ != unix.NLMSG_ERROR || m.sequence < first || m.sequence > last {
				continue
			}
			if errno := m.errno(); errno != 0 && failure == nil {
				failure = &Refused{Step: steps[m.sequence-first], Errno: errno}
			}
			if m.sequence == first || m.sequence == last {
				return failure
			}
		}
	}
}

// Refused is a change or a request that the kernel turned down.
type Refused struct {
	Step  string
	Errno unix.Errno
}

// Error says what was asked for and the kernel's answer.
func (r *Refused) Error() string { return fmt.Sprintf("%s: %s", r.Step, r.Errno) }

// Unwrap returns the errno.
func (r *Refused) Unwrap() error { return r.Errno }
