package agent

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// memory gives back to the system what syncs needed. Reading or writing ten thousand prefixes takes several times the memory that
// stays in use; the runtime would keep the most of it until it needs as much again, and return the rest over minutes.
type memory struct{ kept uint64 }

const (
	// giveBackAfter is for syncs in a row, which would take again what was just given back.
	giveBackAfter = time.Second
	// worthwhile is what the heap must have grown by: a collection costs a millisecond and more.
	worthwhile = 1 << 20
)

// giveBack is called beside the loop, after each sync.
func (m *memory) giveBack(ctx context.Context, _ struct{}) {
	pause(ctx, giveBackAfter)
	if ctx.Err() != nil || heap() < m.kept+worthwhile {
		return
	}
	debug.FreeOSMemory()
	m.kept = heap()
}

// heap is the size of all objects, those included that nothing refers to any more.
func heap() uint64 {
	samples := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64()
}
