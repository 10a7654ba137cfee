package install

import (
	"errors"
	"fmt"
	"time"
)

// A fight is another program that takes back what the watch repairs: so many repairs within so long, until there was none for a
// while.
const (
	fightRepairs = 6
	fightWindow  = 20 * time.Second
	fightCalm    = 10 * time.Second
)

type fight struct {
	repairs []time.Time
	file    string // what it is about, empty for no fight
}

// repaired takes note of a repair, and says whether a fight begins with it.
func (f *fight) repaired(now time.Time, file string) (begins bool) {
	f.repairs = append(f.repairs, now)
	for now.Sub(f.repairs[0]) > fightWindow {
		f.repairs = f.repairs[1:]
	}
	if f.file != "" || len(f.repairs) < fightRepairs {
		return false
	}
	f.file = file
	return true
}

// reason says why the node is not ready during a fight, in the same words until it ends. It is nil without one.
func (f *fight) reason(now time.Time) error {
	if f.file != "" && now.Sub(f.repairs[len(f.repairs)-1]) > fightCalm {
		*f = fight{}
	}
	if f.file == "" {
		return nil
	}
	return fmt.Errorf("in a fight over %s: another program has undone its repair at least %d times within %s; a network plugin that wants the file for itself has to be configured to share it (Cilium: cni.exclusive=false)",
		f.file, fightRepairs, fightWindow)
}

// writePause is the least time between two passes, whatever happens: half of the two seconds in which the node must be
// repaired. Failures make it longer.
const (
	writePause = time.Second
	pauseLimit = 8 * time.Second
)

type pace struct {
	last  time.Time
	pause time.Duration
}

func (p *pace) due(now time.Time) bool { return now.Sub(p.last) >= max(p.pause, writePause) }

// end makes the next try wait longer after a failure that does not pass by itself.
func (p *pace) end(err error) {
	if err == nil || errors.Is(err, errChanged) {
		p.pause = writePause
		return
	}
	p.pause = min(2*max(p.pause, writePause), pauseLimit)
}
