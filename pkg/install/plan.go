package install

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// plan is a network and what has to be done to it: nothing, where change is nil.
type plan struct {
	*network
	change *change
}

// place is the file that names us in the end.
func (p *plan) place() string {
	if p.change != nil {
		return p.change.place()
	}
	return p.path
}

func (p *plan) stage() (*put, error) {
	if p.change == nil {
		return nil, nil
	}
	return p.change.stage()
}

// plan reads and decides; it writes nothing.
func (o Options) plan() (*plan, error) {
	n, err := o.find()
	if err != nil {
		return nil, err
	}
	if err := o.acceptable(n); err != nil {
		return nil, err
	}
	p := &plan{network: n}
	if isSingle(n.name()) {
		p.change, err = o.conversion(n)
	} else {
		p.change, err = o.insertion(n)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.path, err)
	}
	return p, nil
}

func (o Options) insertion(n *network) (*change, error) {
	after, err := Insert(n.raw, o.Entry)
	if err != nil || bytes.Equal(after, n.raw) {
		return nil, err
	}
	return &change{confFile: n.confFile, after: after}, nil
}

// conversion turns X.conf into X.conflist. An X.conflist that is there can only be our own of an earlier run: that was killed
// before it took X.conf away, or X.conf was written again since.
func (o Options) conversion(n *network) (*change, error) {
	if n.isLink() {
		return nil, fmt.Errorf("it is a symlink to a single plugin's configuration, which has no room for a second one; make it a %s", listExt)
	}
	c := &change{confFile: n.confFile, to: listName(n.name())}
	former, err := readFile(filepath.Join(o.ConfDir, c.to))
	entry := o.Entry
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err == nil && convertedFrom(former) == n.name():
		c.over = true
		if l, err := scan(former.raw); err == nil && entry == nil {
			entry = l.text(1)
		}
	default:
		return nil, fmt.Errorf("it must go on as %s, but that is somebody else's; remove the one of both that is not in use", c.to)
	}
	if c.after, err = converted(n.name(), n.raw, entry); err != nil {
		return nil, err
	}
	c.drop = c.over && bytes.Equal(c.after, former.raw)
	return c, nil
}

// convertedFrom is the name of the file that a list was converted from by us, and which it still equals.
func convertedFrom(list *confFile) string {
	name, _, _ := reverted(list.name(), list.raw)
	return name
}

func (c change) sentence() string {
	switch {
	case c.to != "":
		return fmt.Sprintf("%s: goes on as %s", c.path, c.to)
	case c.isLink():
		return fmt.Sprintf("%s: edited in %s", c.path, c.real)
	}
	return c.path + ": edited"
}

// exists says whether there is anything under the name, be it a link to nowhere.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
