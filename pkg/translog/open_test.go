package translog

import (
	"encoding/binary"
	"runtime"
	"testing"
)

// TestOpenGivesBack: what is kept of open connections follows their number, after a peak, and while connections come and go.
func TestOpenGivesBack(t *testing.T) {
	l := &Logger{open: map[openKey]opened{}}
	key := func(n int) (k openKey) {
		binary.BigEndian.PutUint64(k.src[:], uint64(n)) //nolint:gosec // a count
		return k
	}
	came, went := 0, 0
	come := func(number int) {
		for range number {
			l.remember(key(came), opened{start: int64(came)})
			came++
		}
	}
	goUntil := func(left int) {
		for ; came-went > left; went++ {
			delete(l.open, key(went))
		}
	}
	const few, many = 1000, 100_000
	come(few)
	former := live()
	come(many)
	if grown := live() - former; grown < many*64 {
		t.Fatalf("%d connections take %d bytes", many, grown)
	}
	for range 200 {
		goUntil(few)
		come(few)
	}
	if grown := live() - former; grown > many/10*64 {
		t.Errorf("%d more bytes than at first, with as many connections", grown)
	}
	for n := went; n < came; n++ {
		if l.open[key(n)].start != int64(n) {
			t.Fatalf("connection %d is lost", n)
		}
	}
	runtime.KeepAlive(l)
}

// live is the size of all objects that something refers to.
func live() int64 {
	var s runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc) //nolint:gosec // a count
}
