package agent

import (
	"runtime"
	"testing"
)

// TestMemoryIsGivenBack: what a sync needed goes back to the system, and a sync that needed nothing costs no collection.
func TestMemoryIsGivenBack(t *testing.T) {
	const size = 64 << 20
	var m memory
	m.giveBack(t.Context(), struct{}{})
	before := stats()
	garbage := make([]byte, size)
	for i := range garbage {
		garbage[i] = 1
	}
	runtime.KeepAlive(garbage)
	if grown := inUse(stats()) - inUse(before); grown < size {
		t.Fatalf("%d bytes were taken, want %d", grown, size)
	}
	m.giveBack(t.Context(), struct{}{})
	given := stats()
	if grown := int64(inUse(given)) - int64(inUse(before)); grown > size/8 {
		t.Errorf("%d bytes of %d are kept", grown, size)
	}
	if m.giveBack(t.Context(), struct{}{}); stats().NumForcedGC != given.NumForcedGC {
		t.Error("a collection for nothing")
	}
}

func stats() (s runtime.MemStats) {
	runtime.ReadMemStats(&s)
	return s
}

// inUse is what the heap has of the system and did not give back.
func inUse(s runtime.MemStats) uint64 { return s.HeapSys - s.HeapReleased }
