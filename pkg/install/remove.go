package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// reloadTime lets a runtime load the list without us before the binary goes, and a pod that is being attached get into the
// cache.
const reloadTime = 300 * time.Millisecond

// remove takes the entry out of every list that names us, and then the binary, unless something still needs it.
func (i *installer) remove(ctx context.Context) error {
	release, err := i.unwatched()
	if err != nil {
		return err
	}
	defer release()
	unlock, err := i.lockPresent(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	sweep(i.BinDir)
	sweep(i.ConfDir)
	edited, err := i.removeEntries()
	if err != nil {
		return err
	}
	if edited {
		pause(ctx, reloadTime)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("interrupted, %s stays: %w", i.target(), err)
	}
	defer i.forgetLock()
	return i.removeBinary(edited)
}

// lockPresent is lockDirs, but a directory that is missing holds nothing to remove.
func (i *installer) lockPresent(ctx context.Context) (func(), error) {
	unlock, err := i.lockDirs(ctx)
	if errors.Is(err, errNotNow) {
		return func() {}, nil
	}
	return unlock, err
}

func (i *installer) removeEntries() (bool, error) {
	r, err := i.removal()
	if err != nil {
		return false, err
	}
	var puts []*put
	defer func() {
		for _, p := range puts {
			p.discard()
		}
	}()
	for _, c := range r.changes {
		p, err := c.stage()
		if err != nil {
			return false, err
		}
		puts = append(puts, p)
	}
	for _, p := range puts {
		if err := p.commit(); err != nil {
			return true, err
		}
		i.say(p.sentence())
	}
	return len(puts) > 0, nil
}

// removeBinary looks again, because the files may be somebody else's new ones by now.
func (i *installer) removeBinary(edited bool) error {
	if !exists(i.target()) {
		if !edited {
			i.say("nothing to do: ip-masq is not on this node")
		}
		return nil
	}
	if err := i.needed(); err != nil {
		return err
	}
	if err := unlink(i.target()); err != nil {
		return err
	}
	i.say(i.target() + ": removed")
	return nil
}

// needed says why the binary has to stay: a runtime that cannot run it cannot delete its pods.
func (i *installer) needed() error {
	r, err := i.removal()
	if err != nil {
		return err
	}
	return i.neededBy(r)
}

func (i *installer) neededBy(r *removal) error {
	reasons := r.reasons
	for _, c := range r.changes {
		reasons = append(reasons, c.path+" names ip-masq again")
	}
	if len(reasons) > 0 {
		return notNow("%s stays: %s", i.target(), strings.Join(reasons, "; "))
	}
	count, example, err := i.attachments()
	if err != nil {
		return err
	}
	if count > 0 {
		return notNow("the entry is out, but %d attachments in %s still name the plugin (such as %s): %s stays, so that they can be deleted; run uninstall again when they are gone",
			count, i.resultsDir(), example, i.target())
	}
	return nil
}

// forgetLock takes the lock file of a former watch with it; whether that works is of no matter.
func (i *installer) forgetLock() { _ = os.Remove(i.watchLock()) }

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
