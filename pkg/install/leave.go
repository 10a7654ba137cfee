package install

import (
	"context"
	"errors"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/atomicfile"
)

// Leaving takes the plugin off a node in steps, for a program that stays until nothing needs it any more. Every step may be
// repeated, and may be the first after one that was killed.
type Leaving struct{ *installer }

// Leave makes one. It uses the directories of the options. print takes one line for people.
func Leave(o Options, print func(line string)) (Leaving, error) {
	err := o.makeAbsolute()
	return Leaving{&installer{Options: o, print: print}}, err
}

// RemoveEntries takes the entry out of every list that has it. From then on no new pod names the plugin. The error says also what
// only another program or a person can change, such as a list that does not parse.
func (l Leaving) RemoveEntries(ctx context.Context) error {
	unlock, err := l.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	release, err := l.unwatched()
	if err != nil {
		return err
	}
	defer release()
	atomicfile.Sweep(l.ConfDir)
	edited, err := l.removeEntries()
	if err != nil {
		return err
	}
	if edited {
		pause(ctx, reloadTime)
	}
	left, err := l.planRemoval()
	if err != nil {
		return err
	}
	var reasons []error
	for _, reason := range left.reasons {
		reasons = append(reasons, errors.New(reason))
	}
	return errors.Join(reasons...)
}

// Attached counts the pods whose deletion will call the plugin.
func (l Leaving) Attached() (pods int, example string, err error) {
	pods, _, example, err = l.attached()
	return pods, example, err
}

// CacheExists says whether the runtime's cache is there, without which Attached knows nothing.
func (l Leaving) CacheExists() bool { return slices.ContainsFunc(l.resultsDirs(), exists) }

// RemoveBinary removes the plugin, unless a list or a pod names it.
func (l Leaving) RemoveBinary(ctx context.Context) error { return l.remove(ctx) }

// HasBinary says whether the plugin is there.
func (l Leaving) HasBinary() bool { return exists(l.target()) }

// Binary is the plugin's path.
func (l Leaving) Binary() string { return l.target() }
