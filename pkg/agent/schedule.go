package agent

import "time"

// Times of the loop.
const (
	// syncTime bounds one sync.
	syncTime = 30 * time.Second
	// A failed sync is tried again this soon, then less often, but never less often than every maxRetry: pods may be without
	// rules, and what failed (a lock that another program holds, a kernel short of memory) may be over at any moment.
	minRetry = 200 * time.Millisecond
	maxRetry = 800 * time.Millisecond
	// A foreign change is looked at no sooner than this after the last sync, and no sooner than pauseFactor times what reading
	// the kernel takes, so that a program that rewrites its own rules all the time costs a bounded share of one core.
	minPause    = 200 * time.Millisecond
	pauseFactor = 10
	// repairTime is how soon a foreign change is repaired: the pause, reading and writing fit into it. It leaves 200 ms of the
	// promised second to what comes before: the kernel's events are collected for 100 ms.
	repairTime = 800 * time.Millisecond
)

// outcome is what one sync means for the next.
type outcome struct {
	failed   bool
	interval time.Duration // between resyncs
	reading  time.Duration // what reading the kernel took; waiting for a lock or writing does not count
	// ignoreKernel: the rules are of a kind whose changes the kernel does not report, so what it reports is about others.
	ignoreKernel bool
}

// schedule says when the next sync is due. It has no clock: whoever asks says what time it is.
type schedule struct {
	last  outcome
	ended time.Time
	retry time.Duration // after a failed sync, zero after a good one
}

// ended takes down how a sync ended.
func (s *schedule) end(now time.Time, o outcome) {
	s.last, s.ended = o, now
	if !o.failed {
		s.retry = 0
		return
	}
	s.retry = min(max(2*s.retry, minRetry), maxRetry)
}

// next returns when a sync is due, by what was reported since the last one began: that somebody changed rules, or that the node
// changed, by pods that came or by its addresses. A failed sync has its own time, whatever is reported.
func (s *schedule) next(rules, node bool) time.Time {
	switch {
	case s.last.failed:
		return s.ended.Add(min(s.retry, s.last.interval))
	case node, rules && !s.last.ignoreKernel:
		return s.ended.Add(min(s.pause(), s.last.interval))
	}
	return s.ended.Add(s.last.interval)
}

// pause leaves time for the reading and the writing that follow it.
func (s *schedule) pause() time.Duration {
	return max(minPause, min(pauseFactor*s.last.reading, repairTime-2*s.last.reading))
}
