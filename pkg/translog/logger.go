package translog

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/conntrack"
)

// Options of a log.
type Options struct {
	Path     string // of the newest file, or "-" for Out
	Out      io.Writer
	Starts   bool // a line at a connection's start, too
	MaxSize  int64
	MaxFiles int
	Exclude  []netip.Prefix // destinations that no line is written about
	Records  string         // directory of the records of attachments
	// All, at any time, is whether connections of other sources than pods are logged too, as sources: all masquerades them; nil is false.
	All func() bool
	Log *slog.Logger
}

// Counts are what a log has done since it began.
type Counts struct {
	Lines     uint64 // written
	Lost      uint64 // lines that the disk did not take
	Overflows uint64 // how often the kernel dropped events
	Unseen    uint64 // connections whose end was noticed later, by a list
}

// Logger listens and writes.
type Logger struct {
	options Options
	events  *conntrack.Events
	table   *conntrack.Table
	writing chan block
	written chan struct{} // closed when the writer has ended

	mu      sync.Mutex // of what a question reads: history and open
	history *history
	open    map[openKey]opened
	added   int // to open since it was made

	// Of the reader alone.
	buffer   []byte
	lines    int
	handed   time.Time
	quiet    uint64 // the first turn whose changes can be younger than the events that are read
	listing  uint32
	listed   time.Time
	cost     time.Duration // of the last listing
	relist   bool
	sweeping bool
	older    bool // some connections were there before this log, and the kernel may not report their end
	warned   time.Time

	lineCount, lost, overflows, unseen atomic.Uint64
}

// Start opens the sockets in the network namespace of the calling thread, and logs until ctx ends. Wait then returns when the last
// line is written.
func Start(ctx context.Context, o Options) (*Logger, error) {
	history, err := newHistory(o.Records)
	if err != nil {
		return nil, err
	}
	l := &Logger{
		options: o, history: history, open: map[openKey]opened{}, relist: true,
		writing: make(chan block, blocks), written: make(chan struct{}),
	}
	if l.events, err = conntrack.Listen(); err == nil {
		l.table, err = conntrack.Open()
	}
	if err != nil {
		history.close()
		return nil, err
	}
	l.keepTimes()
	go l.write()
	go l.read(ctx)
	return l, nil
}

// keepTimes makes the kernel note when connections begin, of which it notes the end as well. Without it, a start is when its event
// was read, of connections that were there before the log nothing is known, and a pod that has an address for some milliseconds
// is not told from the next.
func (l *Logger) keepTimes() {
	const setting = "/proc/sys/net/netfilter/nf_conntrack_timestamp"
	if now, err := os.ReadFile(setting); err == nil && strings.TrimSpace(string(now)) != "0" {
		return
	}
	if err := os.WriteFile(setting, []byte("1"), 0o644); err != nil { //nolint:gosec // it exists, with the mode of the kernel's choice
		l.options.Log.Info("the kernel does not note when connections begin, so the translation log knows neither start nor pod of those that are open already; "+
			"set net.netfilter.nf_conntrack_timestamp=1 on the node", "reason", err)
	}
}

// Wait waits for the end of writing after the end of the context.
func (l *Logger) Wait() { <-l.written }

// Counts may be called at any time.
func (l *Logger) Counts() Counts {
	return Counts{l.lineCount.Load(), l.lost.Load(), l.overflows.Load(), l.unseen.Load()}
}

// Times of the reader: how long it waits for an event, how long it lets events collect after it found many, how often the table is
// listed at most after events were lost, and how often while there are connections whose end the kernel may not report.
const (
	turnTime    = 500 * time.Millisecond
	collectTime = 2 * time.Millisecond
	relistPause = time.Second
	relistTime  = 5 * time.Minute
	batch       = 256
)

// read is the loop. Ownership is looked at after the events of a batch were read and before they are attributed: a pod's record
// is older than its first connection, so whoever is on record when the first event is read is there in time.
func (l *Logger) read(ctx context.Context) {
	defer func() {
		l.hand(true)
		close(l.writing)
		l.events.Close()
		l.table.Close()
		l.mu.Lock()
		l.history.close()
		l.mu.Unlock()
	}()
	var pending [batch]happening
	for ctx.Err() == nil {
		n, drained := l.take(pending[:])
		l.mu.Lock()
		l.history.refresh()
		for i := range pending[:n] {
			l.happened(&pending[i])
		}
		l.mu.Unlock()
		if drained {
			l.rest(n)
		}
		l.hand(false)
		if l.due() {
			l.list()
		}
	}
}

// happening is an event that was read and not yet attributed.
type happening struct {
	kind conntrack.Kind
	flow conntrack.Flow
	time int64
}

// take reads events until there is none or room for none.
func (l *Logger) take(into []happening) (n int, drained bool) {
	for n < len(into) {
		kind, flow, ok, err := l.events.Next()
		switch {
		case errors.Is(err, conntrack.ErrLost):
			l.overflows.Add(1)
			l.relist = true
			if time.Since(l.warned) > time.Minute {
				l.warned = time.Now()
				l.options.Log.Warn("the kernel dropped events of connections; the connection table is listed to make up for them", "times", l.overflows.Load())
			}
			continue
		case err != nil:
			l.options.Log.Warn("could not read an event of a connection", "error", err)
			time.Sleep(collectTime)
			return n, false
		case !ok:
			return n, true
		}
		into[n] = happening{kind, *flow, time.Now().UnixNano()}
		n++
	}
	return n, false
}

// rest waits for the next event or change of ownership. No event waited when the batch ended, so whatever comes now is younger
// than the changes that were read before the batch: those of turns before the present one.
func (l *Logger) rest(events int) {
	l.quiet = l.history.turn
	l.sweep()
	if events > batch/16 {
		time.Sleep(collectTime)
		return
	}
	if l.history.changed {
		return // one more look, so that the changes of this turn are older than the next event
	}
	limit := turnTime
	if l.lines > 0 {
		limit = blockTime
	}
	l.events.Wait(limit, l.history.inotify)
}

func (l *Logger) happened(h *happening) {
	f := &h.flow
	if h.kind == conntrack.Began {
		l.began(f, h.time)
		return
	}
	key := keyOf(f)
	o, known := l.open[key]
	if !known {
		if !l.ours(f) {
			return
		}
		o = openedOf(f)
	}
	if o.owner != 0 && known {
		l.history.uses[o.owner]--
	}
	delete(l.open, key)
	if f.Start != 0 {
		o.start = f.Start
	}
	if o.owner == 0 {
		o.owner = l.history.at(f.Original.Src.Addr(), f.Start)
	}
	end := h.time
	if f.Stop != 0 {
		end = f.Stop
	}
	l.line(entry{action: actionEnd, flow: f, owner: l.history.owners[o.owner], start: o.start, end: end})
}

// began takes a connection down. One of which a list told before has its start now.
func (l *Logger) began(f *conntrack.Flow, now int64) {
	if !l.ours(f) {
		return
	}
	key := keyOf(f)
	o := openedOf(f)
	former, known := l.open[key]
	if o.start == 0 {
		o.start = now
	}
	o.listing = l.listing
	if o.owner = l.history.during(f.Original.Src.Addr(), l.quiet, f.Start); o.owner != 0 {
		l.history.uses[o.owner]++
	}
	if known && former.owner != 0 {
		l.history.uses[former.owner]--
	}
	l.remember(key, o)
	if l.options.Starts {
		l.line(entry{action: actionStart, flow: f, owner: l.history.owners[o.owner], start: o.start})
	}
}

// ours reports whether a line is to be written about a connection.
func (l *Logger) ours(f *conntrack.Flow) bool {
	if (l.options.All == nil || !l.options.All()) && !l.history.knows(f.Original.Src.Addr()) {
		return false
	}
	return !slices.ContainsFunc(l.options.Exclude, func(p netip.Prefix) bool {
		return p.Contains(f.Original.Dst.Addr()) || p.Contains(f.Reply.Src.Addr())
	})
}

// due reports whether to list the table.
func (l *Logger) due() bool {
	pause := max(relistPause, 20*l.cost)
	return l.relist && time.Since(l.listed) > pause || l.older && time.Since(l.listed) > relistTime
}

// list makes up for lost events: what is in the table and not known has begun; what is known and not in the table has ended, but
// its event may still wait to be read, so that is for sweep to say.
func (l *Logger) list() {
	first := l.listing == 0
	began := time.Now()
	l.relist, l.older = false, false
	l.listing++
	l.mu.Lock()
	err := l.table.Translated(func(f *conntrack.Flow) { l.found(f, first) })
	l.mu.Unlock()
	l.listed = time.Now()
	l.cost = time.Since(began)
	if err != nil {
		l.relist = true
		l.options.Log.Warn("could not list the connection table", "error", err)
		return
	}
	l.sweeping = true
}

func (l *Logger) found(f *conntrack.Flow, first bool) {
	key := keyOf(f)
	if o, known := l.open[key]; known {
		o.listing = l.listing
		l.open[key] = o
		l.older = l.older || o.start == 0
		return
	}
	if !l.ours(f) {
		return
	}
	o := openedOf(f)
	o.listing = l.listing
	o.owner = l.history.at(f.Original.Src.Addr(), f.Start)
	if o.owner == 0 && !first && f.Start == 0 {
		o.owner = l.history.during(f.Original.Src.Addr(), l.quiet, 0) // it began since events were lost
	}
	if o.owner != 0 {
		l.history.uses[o.owner]++
	}
	l.older = l.older || first || o.start == 0
	l.remember(key, o)
	if l.options.Starts && !first {
		now := time.Now().UnixNano()
		if o.start != 0 {
			now = o.start
		}
		l.line(entry{action: actionStart, flow: f, owner: l.history.owners[o.owner], start: now})
	}
}

// sweep ends what the last list did not show, once no event waits any more.
func (l *Logger) sweep() {
	if !l.sweeping {
		return
	}
	l.sweeping = false
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now().UnixNano()
	for key, o := range l.open {
		if o.listing >= l.listing {
			continue
		}
		f := o.flow(key)
		l.line(entry{action: actionEnd, flow: &f, owner: l.history.owners[o.owner], start: o.start, end: now, unseen: true})
		l.unseen.Add(1)
		if o.owner != 0 {
			l.history.uses[o.owner]--
		}
		delete(l.open, key)
	}
}

func (l *Logger) line(e entry) {
	if l.buffer == nil {
		l.buffer = make([]byte, 0, blockSize)
	}
	l.buffer = appendLine(l.buffer, e)
	l.lines++
	if len(l.buffer) > blockSize-1024 {
		l.hand(true)
	}
}

// hand gives lines to the writer. It never waits: where the writer is that far behind, they are lost.
func (l *Logger) hand(now bool) {
	if l.lines == 0 || !now && time.Since(l.handed) < blockTime {
		return
	}
	select {
	case l.writing <- block{l.buffer, l.lines}:
	default:
		l.lost.Add(uint64(l.lines)) //nolint:gosec // a count
	}
	l.buffer, l.lines, l.handed = nil, 0, time.Now()
}

// write takes blocks to the disk. It is a goroutine of its own so that a slow disk does not keep events waiting.
func (l *Logger) write() {
	defer close(l.written)
	f := &file{path: l.options.Path, maxSize: l.options.MaxSize, maxFiles: l.options.MaxFiles}
	defer f.end()
	last := ""
	for b := range l.writing {
		var err error
		if l.options.Path == "-" {
			_, err = l.options.Out.Write(b.lines)
		} else {
			err = f.write(b.lines)
		}
		if err == nil {
			l.lineCount.Add(uint64(b.count)) //nolint:gosec // a count
			last = ""
			continue
		}
		l.lost.Add(uint64(b.count)) //nolint:gosec // a count
		if text := err.Error(); text != last {
			last = text
			l.options.Log.Error("lines of the translation log are lost", "error", err)
		}
	}
}
