package agent

import (
	"testing"
	"time"
)

const ms = time.Millisecond

// TestSchedule reads as a table: how the last sync ended, and how long after it the next one comes.
func TestSchedule(t *testing.T) {
	t.Parallel()
	good := func(reading time.Duration) outcome { return outcome{interval: time.Minute, reading: reading} }
	failed := outcome{failed: true, interval: time.Minute}
	for _, c := range []struct {
		name         string
		ends         []outcome
		quiet, event time.Duration
	}{
		{"good, nothing to read", []outcome{good(0)}, time.Minute, 200 * ms},
		{"reading is quick", []outcome{good(5 * ms)}, time.Minute, 200 * ms},
		{"reading costs", []outcome{good(40 * ms)}, time.Minute, 400 * ms},
		{"reading costs more: pause, reading and writing fit into a second", []outcome{good(150 * ms)}, time.Minute, 500 * ms},
		{"reading takes as long as a repair may", []outcome{good(900 * ms)}, time.Minute, 200 * ms},
		{"reading takes a minute", []outcome{good(time.Minute)}, time.Minute, 200 * ms},
		{"failed", []outcome{failed}, 200 * ms, 200 * ms},
		{"failed twice", []outcome{failed, failed}, 400 * ms, 400 * ms},
		{"failed four times", []outcome{failed, failed, failed, failed}, 800 * ms, 800 * ms},
		{"failed after a slow reading", []outcome{good(time.Minute), {failed: true, interval: time.Minute, reading: 30 * time.Second}}, 200 * ms, 200 * ms},
		{"failed, good, failed", []outcome{failed, failed, good(0), failed}, 200 * ms, 200 * ms},
		{"a short interval", []outcome{{interval: 100 * ms, reading: 90 * ms}}, 100 * ms, 100 * ms},
		{"failed, a short interval", []outcome{{failed: true, interval: 100 * ms}}, 100 * ms, 100 * ms},
		{"no kernel events", []outcome{{interval: time.Minute, ignoreKernel: true}}, time.Minute, time.Minute},
	} {
		pods := c.event
		if c.name == "no kernel events" {
			pods = 200 * ms
		}
		var s schedule
		now := time.Unix(1_000_000, 0)
		for _, o := range c.ends {
			s.end(now, o)
		}
		if quiet, event := s.next(false, false).Sub(now), s.next(true, false).Sub(now); quiet != c.quiet || event != c.event {
			t.Errorf("%s: next after %s, with an event %s; want %s and %s", c.name, quiet, event, c.quiet, c.event)
		}
		if got := s.next(false, true).Sub(now); got != pods {
			t.Errorf("%s: after a pod came, next after %s, want %s", c.name, got, pods)
		}
	}
}
