package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/atomicfile"
)

// reloadTime lets a runtime load the list without the plugin before the binary goes, and a pod that is being attached get into
// the cache.
const reloadTime = 300 * time.Millisecond

// remove takes the entry out of every list that has it, and then the binary, unless something still needs it.
func (i *installer) remove(ctx context.Context) error {
	unlock, err := i.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	release, err := i.unwatched()
	if err != nil {
		return err
	}
	defer release()
	atomicfile.Sweep(i.BinDir)
	atomicfile.Sweep(i.ConfDir)
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
	if !exists(i.target()) {
		if !edited {
			i.print("nothing to do: ip-masq is not on this node")
		}
		return nil
	}
	// Once more, because the files may be another program's new ones by now.
	again, err := i.planRemoval()
	if err != nil {
		return err
	}
	for _, c := range again.changes {
		again.reasons = append(again.reasons, c.path+" names ip-masq again")
	}
	if err := i.stillNeeded(again.reasons); err != nil {
		return err
	}
	if err := atomicfile.Remove(i.target()); err != nil {
		return err
	}
	i.print(i.target() + ": removed")
	return nil
}

// removeEntries stages every change before the first is committed.
func (i *installer) removeEntries() (edited bool, err error) {
	r, err := i.planRemoval()
	if err != nil {
		return false, err
	}
	var staged []*stagedChange
	for _, c := range r.changes {
		s, err := c.stage()
		if err != nil {
			return false, err
		}
		defer s.discard()
		staged = append(staged, s)
	}
	for _, s := range staged {
		if err := s.commit(); err != nil {
			return true, err
		}
		i.print(s.done())
	}
	return len(staged) > 0, nil
}

// stillNeeded says why the binary has to stay: a runtime that cannot run it cannot delete its pods.
func (i *installer) stillNeeded(reasons []string) error {
	if len(reasons) > 0 {
		return notNow("%s stays: %s", i.target(), strings.Join(reasons, "; "))
	}
	pods, attachments, example, err := i.attached()
	if err != nil || attachments == 0 {
		return err
	}
	return notNow("the entry is out, but %d pods (%d attachments, such as %s) still name the plugin: %s stays, so that they can be deleted; run uninstall again when they are gone",
		pods, attachments, example, i.target())
}

// resultsDirs are the runtime's cache, and multus's: it calls the plugins of a network itself, and deletes by what it cached.
func (o Options) resultsDirs() []string {
	dirs := []string{filepath.Join(o.CacheDir, "results"), filepath.Join(o.CacheDir, "multus", "results")}
	names, _ := candidates(o.ConfDir)
	for _, name := range names {
		n, err := readNetwork(filepath.Join(o.ConfDir, name))
		if err != nil || n.understand() != nil || !isMultus(n) {
			continue
		}
		if dir := filepath.Join(stringOf(n.multusConf()["cniDir"]), "results"); filepath.IsAbs(dir) && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// attached counts the pods whose deletion will call the plugin: libcni caches the list that a pod was attached by, and CRI-O
// replays that on DEL, whatever the file says by then. A pod has an attachment for each of its networks.
func (o Options) attached() (pods, attachments int, example string, err error) {
	containers := map[string]bool{}
	for _, dir := range o.resultsDirs() {
		files, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, 0, "", fmt.Errorf("read the runtime's attachments (--cni-cache-dir): %w", err)
		}
		for _, file := range files {
			var cached struct {
				Config      []byte `json:"config"`
				ContainerID string `json:"containerId"`
			}
			path := filepath.Join(dir, file.Name())
			raw, err := os.ReadFile(path)
			if err == nil && json.Unmarshal(raw, &cached) == nil && namesPlugin(cached.Config) {
				attachments, example = attachments+1, path
				containers[cached.ContainerID] = true
			}
		}
	}
	return len(containers), attachments, example, nil
}

// previewRemoval prints what uninstall would do.
func (i *installer) previewRemoval(to io.Writer) error {
	if err := i.watched(); err != nil {
		return err
	}
	r, err := i.planRemoval()
	if err != nil {
		return err
	}
	for _, c := range r.changes {
		c.show(to)
	}
	if !exists(i.target()) {
		return nil
	}
	if err := i.stillNeeded(r.reasons); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(to, "# remove %s\n", i.target())
	return nil
}
