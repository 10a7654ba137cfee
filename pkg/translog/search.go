package translog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/conntrack"
)

// Query is what somebody outside knows of a connection.
type Query struct {
	Translated netip.AddrPort
	Proto      string     // empty: any
	Dst        netip.Addr // invalid: any
	DstPort    uint16     // 0: any
	At         time.Time  // zero: now
}

func (q Query) matches(c *Connection) bool {
	if c.Translated != q.Translated || q.Proto != "" && q.Proto != c.Proto {
		return false
	}
	if !q.Dst.IsValid() {
		return true
	}
	is := func(e netip.AddrPort) bool { return e.Addr() == q.Dst && (q.DstPort == 0 || q.DstPort == e.Port()) }
	return is(c.Dst) || is(c.Answers)
}

// Live lists the open connections that match. Whose they are is what the log knows, where there is one; otherwise it is the pod
// that has the address now, unless the connection began before that pod was there.
func Live(q Query, logger *Logger, records string) ([]Connection, error) {
	table, err := conntrack.Open()
	if err != nil {
		return nil, err
	}
	defer table.Close()
	var found []Connection
	var keys []openKey
	err = table.Translated(func(f *conntrack.Flow) {
		if f.Reply.Dst != q.Translated {
			return
		}
		if c := connectionOf(f); q.matches(&c) {
			found, keys = append(found, c), append(keys, keyOf(f))
		}
	})
	if err != nil || len(found) == 0 {
		return nil, err
	}
	for i := range found {
		if logger == nil || !logger.complete(&found[i], keys[i]) {
			found[i].Owner = present(records, found[i])
		}
	}
	return found, nil
}

// complete adds what the log knows, and reports whether it knows the pod.
func (l *Logger) complete(c *Connection, key openKey) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	o, known := l.open[key]
	if !known {
		return false
	}
	if c.Start.IsZero() {
		c.Start = timeOf(o.start)
	}
	c.Owner = l.history.owners[o.owner]
	return c.Owner != nil
}

// present returns who has the source address now.
func present(records string, c Connection) *Owner {
	store := attachment.Store{Dir: records}
	all, _ := store.List() // what cannot be read names nobody
	var owner *Owner
	for _, a := range all {
		for _, addr := range a.Addresses {
			since, err := store.Since(a.ID())
			if addr != c.Src.Addr() || err == nil && !c.Start.IsZero() && c.Start.Before(since) {
				continue
			}
			if owner != nil {
				return nil // several have it, and nothing tells which one it is
			}
			o := ownerOf(a)
			owner = &o
		}
	}
	return owner
}

// Past is what a log says.
type Past struct {
	Found []Connection
	From  time.Time // when the first line that is there was written; zero without one
	To    time.Time // and the last
}

// Search looks for connections in the files of a log, from the oldest to the newest. With a time it finds those that were open
// then, and without one the last.
func Search(q Query, path string, maxFiles int) (Past, error) {
	var past Past
	var failures []error
	for i := maxFiles - 1; i >= 0; i-- {
		err := past.searchFile(q, rotated(path, i))
		if !errors.Is(err, fs.ErrNotExist) {
			failures = append(failures, err)
		}
	}
	if q.At.IsZero() && len(past.Found) > 1 {
		past.Found = past.Found[len(past.Found)-1:]
	}
	return past, errors.Join(failures...)
}

// maxLine bounds what is taken for a line.
const maxLine = 1 << 20

func (p *Past) searchFile(q Query, path string) error {
	open, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = open.Close() }()
	// Decoding takes far longer than looking for the port in the text, which few lines have.
	port := []byte(`"source.nat.port":` + strconv.Itoa(int(q.Translated.Port())) + `,`)
	var last []byte
	lines := bufio.NewScanner(open)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	for first := true; lines.Scan(); first = false {
		text := lines.Bytes()
		if first && p.From.IsZero() {
			p.From = written(text)
		}
		last = append(last[:0], text...)
		if bytes.Contains(text, port) {
			p.take(q, text)
		}
	}
	if at := written(last); !at.IsZero() {
		p.To = at
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

func written(text []byte) time.Time {
	var stamp struct {
		Time time.Time `json:"@timestamp"`
	}
	_ = json.Unmarshal(text, &stamp) // a line that was cut has no time
	return stamp.Time
}

// take keeps a matching line. A connection's end has all that its start has, and takes its place.
func (p *Past) take(q Query, text []byte) {
	var l line
	if json.Unmarshal(text, &l) != nil {
		return
	}
	c := l.connection()
	if !q.matches(&c) {
		return
	}
	if !q.At.IsZero() && (!c.Start.IsZero() && q.At.Before(c.Start) || !c.End.IsZero() && q.At.After(c.End)) {
		p.drop(c)
		return
	}
	p.drop(c)
	p.Found = append(p.Found, c)
}

// drop removes the line about the start of the same connection.
func (p *Past) drop(c Connection) {
	for i, former := range p.Found {
		if former.End.IsZero() && former.Start.Equal(c.Start) && former.Src == c.Src && former.Dst == c.Dst && former.Proto == c.Proto {
			p.Found = append(p.Found[:i], p.Found[i+1:]...)
			return
		}
	}
}
