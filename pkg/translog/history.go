package translog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
)

// tenancy is the time during which an attachment has an address. The clock that puts it in order with connections is turn, the
// number of the reading of changes at which it was noticed: times alone would not tell what came first within one reading.
type tenancy struct {
	owner             *Owner
	number            uint32 // of the owner, for tables without pointers
	from, to          int64  // nanoseconds; to is 0 while it lasts
	fromTurn, endTurn uint64
}

// history knows who had an address when. It follows the directory of records: the plugin writes a record before the pod can send
// its first packet, and removes it after the last.
type history struct {
	store   attachment.Store
	inotify int
	buffer  []byte
	turn    uint64
	byAddr  map[netip.Addr][]*tenancy
	records map[attachment.ID]attachment.Attachment
	owners  map[uint32]*Owner
	uses    map[uint32]int // connections that name an owner
	last    uint32
	scanned time.Time
	watched bool // the directory is there, and its changes are reported; the first pod of a node makes it

	changed   bool   // in this turn
	reading   int64  // when the last reading began
	refreshed int64  // when the last turn ended
	blind     uint64 // the last turn in which a record was gone before it could be read
	blindTime int64  // and when
}

// keepEnded is for how long an ended tenancy can still be asked for. A connection is attributed when it begins, or when a list of
// the table shows it after events were lost, which is a matter of seconds.
const keepEnded = 10 * time.Minute

// rescan is how often the directory is listed all the same: it may have been removed and made again.
const rescan = time.Minute

func newHistory(dir string) (*history, error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("watch the records of attachments: %w", err)
	}
	h := &history{
		store: attachment.Store{Dir: dir}, inotify: fd, buffer: make([]byte, 64<<10),
		byAddr: map[netip.Addr][]*tenancy{}, records: map[attachment.ID]attachment.Attachment{}, owners: map[uint32]*Owner{}, uses: map[uint32]int{},
	}
	h.scan()
	return h, nil
}

func (h *history) close() { _ = unix.Close(h.inotify) }

// scan lists the directory.
func (h *history) scan() {
	h.scanned = time.Now()
	h.reading = h.scanned.UnixNano()
	_, err := unix.InotifyAddWatch(h.inotify, h.store.Dir, unix.IN_MOVED_TO|unix.IN_DELETE)
	h.watched = err == nil
	all, _ := h.store.List()
	present := map[attachment.ID]bool{}
	for _, a := range all {
		present[a.ID()] = true
		h.begin(a)
	}
	for id := range h.records {
		if !present[id] && !h.store.Has(id) {
			h.end(id)
		}
	}
	h.forget()
}

// refresh reads what changed since the last call, which it counts as one turn.
func (h *history) refresh() {
	h.turn++
	h.changed = false
	defer func() {
		now := time.Now().UnixNano()
		if h.blind == h.turn {
			h.blindTime = now
			h.unsure()
		}
		h.refreshed = now
	}()
	if !h.watched || time.Since(h.scanned) > rescan {
		h.scan()
	}
	for {
		h.reading = time.Now().UnixNano()
		n, err := unix.Read(h.inotify, h.buffer)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n <= 0 {
			return
		}
		h.changed = true
		h.changes(h.buffer[:n])
	}
}

// changes reads struct inotify_event, one after the other.
func (h *history) changes(b []byte) {
	for len(b) >= unix.SizeofInotifyEvent {
		mask := binary.NativeEndian.Uint32(b[4:])
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
		if size > len(b) {
			return
		}
		name := strings.TrimRight(string(b[unix.SizeofInotifyEvent:size]), "\x00")
		b = b[size:]
		if mask&(unix.IN_Q_OVERFLOW|unix.IN_IGNORED) != 0 {
			h.scan()
			continue
		}
		text, isRecord := strings.CutSuffix(name, ".json")
		id := attachment.ID(text)
		if !isRecord || !id.Valid() {
			continue
		}
		if mask&unix.IN_DELETE != 0 && !h.store.Has(id) {
			h.end(id)
			continue
		}
		if a, err := h.store.Get(id); err == nil {
			h.begin(a)
		} else if _, known := h.records[id]; !known {
			h.blind = h.turn
		}
	}
}

// unsure is called when a record was gone before it could be read: some pod had some address for a moment. So the ends that were
// noticed in this turn are only known not to lie before the last one.
func (h *history) unsure() {
	for _, all := range h.byAddr {
		for _, t := range all {
			if t.to != 0 && t.endTurn == h.turn {
				t.to = max(t.from, h.refreshed)
			}
		}
	}
}

// begin takes down an attachment's addresses. A repeated ADD with the same ones changes nothing.
func (h *history) begin(a attachment.Attachment) {
	id := a.ID()
	if former, ok := h.records[id]; ok {
		if slices.Equal(former.Addresses, a.Addresses) {
			return
		}
		h.end(id)
	}
	h.records[id] = a
	h.last++
	owner := ownerOf(a)
	h.owners[h.last] = &owner
	from := time.Now()
	if written, err := h.store.Since(id); err == nil {
		from = written
	}
	for _, addr := range a.Addresses {
		t := &tenancy{owner: &owner, number: h.last, from: from.UnixNano(), fromTurn: h.turn}
		for _, former := range h.byAddr[addr] {
			if former.to != 0 && former.to > t.from {
				former.to = max(former.from, t.from) // its end was noticed after the beginning of the next one
			}
		}
		h.byAddr[addr] = append(h.byAddr[addr], t)
	}
}

func (h *history) end(id attachment.ID) {
	for _, addr := range h.records[id].Addresses {
		for _, t := range h.byAddr[addr] {
			if t.to == 0 && t.owner.ContainerID == h.records[id].ContainerID && t.owner.IfName == h.records[id].IfName && t.owner.Network == h.records[id].Network {
				t.to, t.endTurn = max(t.from, h.reading), h.turn
			}
		}
	}
	delete(h.records, id)
}

// forget drops what ended long ago, and owners that neither an address nor a connection names.
func (h *history) forget() {
	oldest := time.Now().Add(-keepEnded).UnixNano()
	named := map[uint32]bool{}
	for addr, all := range h.byAddr {
		all = slices.DeleteFunc(all, func(t *tenancy) bool { return t.to != 0 && t.to < oldest })
		for _, t := range all {
			named[t.number] = true
		}
		if h.byAddr[addr] = all; len(all) == 0 {
			delete(h.byAddr, addr)
		}
	}
	for number := range h.owners {
		if !named[number] && h.uses[number] == 0 {
			delete(h.owners, number)
			delete(h.uses, number)
		}
	}
}

// knows reports whether a pod has the address, or had it lately.
func (h *history) knows(addr netip.Addr) bool { return len(h.byAddr[addr]) > 0 }

// during returns who had the address in the turns from first to the present one; 0 when it was nobody, or several of whom the
// connection's start, where it is known, does not pick one.
func (h *history) during(addr netip.Addr, first uint64, start int64) (number uint32) {
	found := 0
	for _, t := range h.byAddr[addr] {
		if t.endTurn == 0 || t.endTurn >= first {
			found, number = found+1, t.number
		}
	}
	if found == 1 && (h.blind == 0 || h.blind < first) {
		return number
	}
	return h.at(addr, start)
}

// coarse is how far the time of a file can lie before the time at which it was written: a tick of the kernel.
const coarse = int64(10 * time.Millisecond)

// at returns who had the address when a connection began; 0 when that is not known.
func (h *history) at(addr netip.Addr, start int64) (number uint32) {
	found := 0
	for _, t := range h.byAddr[addr] {
		if t.from <= start && (t.to == 0 || start <= t.to) {
			found++
			if start >= t.from+coarse || !h.busy(addr, t) {
				number = t.number
			}
		}
	}
	if found != 1 {
		return 0
	}
	return number
}

// busy reports whether somebody else had the address, or may have had it, right before.
func (h *history) busy(addr netip.Addr, t *tenancy) bool {
	return h.blindTime > t.from-coarse || slices.ContainsFunc(h.byAddr[addr], func(other *tenancy) bool {
		return other != t && (other.to == 0 || other.to > t.from-coarse)
	})
}
