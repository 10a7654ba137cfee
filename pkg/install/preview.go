package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// preview prints what install would do. It takes no lock and writes no file, so it proves the plugin where it lies; one that
// cannot be run there, for want of its mode bits, is proved by install only.
func (i *installer) preview(ctx context.Context, to io.Writer) error {
	plan, err := i.plan()
	if err != nil {
		return err
	}
	same, err := i.uptodate()
	if err != nil {
		return err
	}
	versions, err := supportedVersions(ctx, i.source())
	if err == nil {
		err = plan.spoken(versions)
	} else if errors.Is(err, fs.ErrPermission) {
		err = nil
	}
	if err != nil {
		return err
	}
	if !same {
		_, _ = fmt.Fprintf(to, "# install %s as %s\n", i.source(), i.target())
	}
	if plan.change != nil {
		plan.change.print(to)
	}
	return nil
}

// previewRemoval prints what uninstall would do.
func (i *installer) previewRemoval(to io.Writer) error {
	release, err := i.unwatched()
	if err != nil {
		return err
	}
	release()
	r, err := i.removal()
	if err != nil {
		return err
	}
	for _, c := range r.changes {
		c.print(to)
	}
	if !exists(i.target()) {
		return nil
	}
	r.changes = nil
	if err := i.neededBy(r); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(to, "# remove %s\n", i.target())
	return nil
}

// print shows a change as patch would take it.
func (c change) print(to io.Writer) {
	if c.drop {
		_, _ = fmt.Fprintf(to, "# remove %s, for which %s is there\n", c.path, c.place())
		return
	}
	diff(to, c.real, c.place(), c.raw, c.after)
}
