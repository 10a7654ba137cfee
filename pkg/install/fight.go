package install

import (
	"errors"
	"fmt"
	"time"
)

// A fight is somebody else who takes back what we repair: so many repairs within so long, until there was none for a while.
const (
	fightRepairs = 6
	fightWindow  = 20 * time.Second
	fightCalm    = 10 * time.Second
)

type fight struct {
	repairs []time.Time
	on      bool
}

func (f *fight) add(now time.Time) { f.repairs = append(f.repairs, now) }

func (f *fight) active(now time.Time) bool {
	for len(f.repairs) > 0 && now.Sub(f.repairs[0]) > fightWindow {
		f.repairs = f.repairs[1:]
	}
	count := len(f.repairs)
	calm := count == 0 || now.Sub(f.repairs[count-1]) > fightCalm
	f.on = !calm && (f.on || count >= fightRepairs)
	return f.on
}

func (f *fight) reason(dir string) error {
	return fmt.Errorf("in a fight: somebody else undid %d repairs in %s within %s; a network plugin that wants the file for itself, such as Cilium with cni.exclusive=true, must be told to share it",
		len(f.repairs), dir, fightWindow)
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
func (p *pace) begin(now time.Time)    { p.last = now }
func (p *pace) reset()                 { p.pause = writePause }

// end makes the next try wait longer after a failure that time alone does not heal.
func (p *pace) end(err error) {
	if err == nil || errors.Is(err, errLost) {
		p.reset()
		return
	}
	p.pause = min(2*max(p.pause, writePause), pauseLimit)
}
