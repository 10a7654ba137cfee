package install

import (
	"context"
	"errors"
	"fmt"
)

// installer is the work on one node. say takes one line for people.
type installer struct {
	Options
	say   func(line string)
	about string // what the last pass found to be good
	// single ends a pass at its first change: a loop looks again anyway, at its own pace.
	single   bool
	versions []string // that the plugin spoke in the last pass
}

func newInstaller(o Options, say func(string)) *installer { return &installer{Options: o, say: say} }

func (i *installer) state() string { return i.about }

// passes bounds how often one pass starts again because somebody else writes at the same time.
const passes = 5

// pass makes binary and conflist what they should be, and looks again until nothing is left to do.
func (i *installer) pass(ctx context.Context) (changed bool, err error) {
	unlock, err := i.lockDirs(ctx)
	if err != nil {
		return false, err
	}
	defer unlock()
	sweep(i.BinDir)
	sweep(i.ConfDir)
	for range passes {
		var did bool
		did, err = i.once(ctx)
		changed = changed || did
		if err == nil && (!did || i.single) || err != nil && !errors.Is(err, errLost) {
			return changed, err
		}
	}
	if err == nil {
		err = fmt.Errorf("somebody else rewrites the files in %s as fast as they are repaired", i.ConfDir)
	}
	return changed, err
}

// once stages everything, so that a refusal or a full disk comes before the first change, and then commits: the binary first,
// because from the next commit on a runtime may call it.
func (i *installer) once(ctx context.Context) (did bool, err error) {
	plan, err := i.plan()
	if err != nil {
		return false, err
	}
	binary, versions, err := i.binary(ctx)
	if err != nil {
		return false, err
	}
	defer binary.discard()
	if err := plan.spoken(versions); err != nil {
		return false, err
	}
	i.versions = versions
	put, err := plan.stage()
	if err != nil {
		return false, err
	}
	defer put.discard()
	return i.commit(ctx, plan, binary, put)
}

func (i *installer) commit(ctx context.Context, plan *plan, binary *staged, put *put) (did bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, fmt.Errorf("interrupted, nothing was changed: %w", err)
	}
	if binary != nil {
		if err := binary.commit(); err != nil {
			return false, err
		}
		i.say(i.target() + ": installed")
	}
	if put != nil {
		if err := put.commit(); err != nil {
			return binary != nil, err
		}
		i.say(plan.change.sentence())
	}
	i.about = fmt.Sprintf("%s names ip-masq, and %s answers", plan.place(), i.target())
	return binary != nil || put != nil, nil
}

// keepBinary is pass for a node whose network is not there yet, or is broken for the time being.
func (i *installer) keepBinary(ctx context.Context) (changed bool, err error) {
	lock, err := lockDir(ctx, i.BinDir)
	if err != nil {
		return false, err
	}
	defer func() { _ = lock.Close() }()
	sweep(i.BinDir)
	binary, _, err := i.binary(ctx)
	if err != nil || binary == nil {
		return false, err
	}
	defer binary.discard()
	if err := binary.commit(); err != nil {
		return false, err
	}
	i.say(i.target() + ": installed")
	return true, nil
}

// binary is the plugin staged, or nothing where the one that is there is the same; and in both cases its versions.
func (i *installer) binary(ctx context.Context) (*staged, []string, error) {
	same, err := i.uptodate()
	if err != nil {
		return nil, nil, err
	}
	if !same {
		return i.stageBinary(ctx)
	}
	versions, err := supportedVersions(ctx, i.target())
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", i.target(), err)
	}
	return nil, versions, nil
}
