// Package install puts the CNI plugin ip-masq on a node: the binary first, proved by running it, then its entry in the
// conflist that the container runtime really loads. It repairs both continuously when asked to, and takes them out again.
//
// It refuses to make a network of its own, to change a byte of a conflist beside its entry, to write a file in place, to
// name a binary that does not answer, to take away one that is still named, and to undo its work because it has to end.
package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/ip-masq/ip-masq-cni/pkg/atomicfile"
)

// installer is the work on one node. print takes one line for people.
type installer struct {
	Options
	print func(line string)
	// warn takes one line about what the operator should know before the first change.
	warn func(line string)
	// watching ends a pass at its first change, because a loop looks again at its own pace; and it keeps the plugin on the node
	// also while the network is missing or broken, because pods that are there already need it.
	watching bool

	state    string   // what the last pass found to be good
	versions []string // that the plugin spoke in the last pass
}

// passes bounds how often one pass starts again because another program writes at the same time.
const passes = 5

// pass makes binary and conflist what they should be, looks again until nothing is left to do, and returns the file that was
// changed last, empty for none.
func (i *installer) pass(ctx context.Context) (changed string, err error) {
	unlock, err := i.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	atomicfile.Sweep(i.BinDir)
	atomicfile.Sweep(i.ConfDir)
	if plan, err := i.planInstall(); err == nil {
		plan.sweep()
	}
	for range passes {
		var file string
		file, err = i.step(ctx)
		if file != "" {
			changed = file
		}
		if err == nil && (file == "" || i.watching) || err != nil && !errors.Is(err, errChanged) {
			return changed, err
		}
	}
	if err == nil {
		err = fmt.Errorf("another program rewrites the files in %s as fast as they are repaired", i.ConfDir)
	}
	return changed, err
}

// step stages everything, so that a refusal or a full disk comes before the first change, and then commits: the binary first,
// because from the next commit on a runtime may call it.
func (i *installer) step(ctx context.Context) (changed string, err error) {
	plan, planErr := i.planInstall()
	pluginOnly := i.watching && errors.Is(planErr, errNotNow)
	if planErr != nil && !pluginOnly {
		return "", planErr
	}
	binary, versions, err := i.binary(ctx)
	if err != nil {
		return "", errors.Join(planErr, err)
	}
	defer binary.Discard()
	var files stagedPlan
	if !pluginOnly {
		if err := plan.speaks(versions); err != nil {
			return "", err
		}
		if files, err = plan.stage(); err != nil {
			return "", err
		}
		defer files.discard()
	}
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("interrupted, nothing was changed: %w", err)
	}
	if !plan.isNothing() {
		for _, line := range plan.warnings() {
			i.warn(line)
		}
	}
	if binary != nil {
		if err := binary.Commit(); err != nil {
			return "", err
		}
		changed = i.target()
		i.print(changed + ": installed")
	}
	if pluginOnly {
		return changed, planErr
	}
	for _, file := range files {
		if err := file.commit(); err != nil {
			return changed, err
		}
		if !file.isNothing() {
			changed = file.loaded()
			i.print(file.done())
		}
	}
	i.versions = versions
	i.state = fmt.Sprintf("%s names ip-masq, and %s answers", plan.loaded(), i.target())
	return changed, nil
}

// preview prints what install would do. It takes no lock and writes no file, so it proves the plugin where it lies; one that
// cannot be run there, for want of its mode bits, is proved by install only.
func (i *installer) preview(ctx context.Context, to io.Writer) error {
	plan, err := i.planInstall()
	if err != nil {
		return err
	}
	same, err := i.upToDate()
	if err != nil {
		return err
	}
	versions, err := supportedVersions(ctx, i.source())
	if err == nil {
		err = plan.speaks(versions)
	}
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	if !same {
		_, _ = fmt.Fprintf(to, "# install %s as %s\n", i.source(), i.target())
	}
	for _, line := range plan.warnings() {
		i.warn(line)
	}
	for _, c := range plan {
		c.show(to)
	}
	return nil
}
