package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// change is what shall become of one file of the conf directory, a value that can be compared, printed, or carried out. It may
// be nothing.
type change struct {
	*network
	after []byte
	to    string // the name under which the file goes on, where that is another one
	over  bool   // a former conversion is under that name, and is replaced
	drop  bool   // the file is removed: what is under that name has all of it
	copy  bool   // what is edited is the copy of the list that multus keeps in its own configuration
}

// plan is what install has to do in the conf directory: to the list, and to the copy of it that multus may keep. It is never
// empty where there was no error.
type plan []*change

func (p plan) isNothing() bool {
	return !slices.ContainsFunc(p, func(c *change) bool { return !c.isNothing() })
}

// loaded is the file that the runtime, or multus, has the list from.
func (p plan) loaded() string { return p[0].loaded() }

// unlike is the first file that is not what it should be.
func (p plan) unlike() string {
	i := slices.IndexFunc(p, func(c *change) bool { return !c.isNothing() })
	return p[max(i, 0)].path
}

func (p plan) speaks(versions []string) error { return p[0].speaks(versions) }

func (p plan) warnings() []string {
	if len(p) == 0 {
		return nil
	}
	return p[0].warnings()
}

func (c *change) isNothing() bool { return c.to == "" && bytes.Equal(c.after, c.raw) }

// loaded is the name under which the runtime finds the file afterwards.
func (c *change) loaded() string {
	if c.to != "" {
		return filepath.Join(filepath.Dir(c.path), c.to)
	}
	return c.path
}

// place is the file that is written.
func (c *change) place() string {
	if c.to != "" {
		return c.loaded()
	}
	return c.real
}

// done is the change in one line, for people.
func (c *change) done() string {
	switch {
	case c.to != "":
		return fmt.Sprintf("%s: goes on as %s", c.path, c.to)
	case c.copy:
		return fmt.Sprintf("%s: edited; it has a copy of the list, which multus makes when it starts", c.path)
	case c.isLink():
		return fmt.Sprintf("%s: edited in %s", c.path, c.real)
	}
	return c.path + ": edited"
}

// show prints the change as patch would take it.
func (c *change) show(to io.Writer) {
	switch {
	case c.drop:
		_, _ = fmt.Fprintf(to, "# remove %s, for which %s is there\n", c.path, c.place())
	case !c.isNothing():
		diff(to, c.real, c.place(), c.raw, c.after)
	}
}

// planInstall reads and decides what is to be done; it writes nothing.
func (o Options) planInstall() (plan, error) {
	n, multus, err := o.find()
	if err != nil {
		return nil, err
	}
	if err := o.acceptable(n); err != nil {
		return nil, err
	}
	if multus == nil {
		c, err := o.planList(n)
		return plan{c}, err
	}
	copied := &change{network: multus, copy: true}
	if n.path == multus.path {
		copied.after, err = insertIntoCopy(multus.raw, n.name(), o.Entry)
		return plan{copied}, err
	}
	c, err := o.planList(n)
	if err != nil {
		return nil, err
	}
	entry := o.Entry
	if list, err := scan(c.after); err == nil && entry == nil {
		entry = list.text(list.own()[0])
	}
	if copied.after, err = insertIntoCopy(multus.raw, n.name(), entry); err != nil {
		return nil, fmt.Errorf("%s: the copy of %s: %w", multus.path, n.path, err)
	}
	return plan{c, copied}, nil
}

// planList is the change of the list itself.
func (o Options) planList(n *network) (c *change, err error) {
	c = &change{network: n}
	if isSingle(n.path) {
		err = o.planConversion(c)
	} else {
		c.after, err = Insert(n.raw, o.Entry)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.path, err)
	}
	return c, nil
}

// planConversion turns X.conf into X.conflist. An X.conflist that is there can only be one that an earlier run made: it was
// killed before it took X.conf away, or X.conf was written again since.
func (o Options) planConversion(c *change) error {
	if by := o.namedBy(c.path); by != "" {
		return fmt.Errorf("%s names it by its path, so it must keep its name, under which there is no room for a second plugin; make it a list (%s), name that there, and install again; or let the agent work without the plugin (--sources=all)",
			by, listName(c.name()))
	}
	if c.isLink() {
		return fmt.Errorf("it is a symlink to a single plugin's configuration, which has no room for a second one; make it a %s", listExt)
	}
	c.to = listName(c.name())
	entry := o.Entry
	former, err := readNetwork(filepath.Join(o.ConfDir, c.to))
	if !errors.Is(err, fs.ErrNotExist) {
		if err != nil || convertedFrom(former) != c.name() {
			return fmt.Errorf("it must go on as %s, but that is another program's; remove the one of both that is not in use", c.to)
		}
		c.over = true
		if l, err := scan(former.raw); err == nil && entry == nil {
			entry = l.text(1)
		}
	}
	c.after, err = converted(c.name(), c.raw, entry)
	c.drop = c.over && bytes.Equal(c.after, former.raw)
	return err
}

// convertedFrom is the name of the file that a list was made of by an earlier run, and which it still equals.
func convertedFrom(list *network) string {
	name, _, _ := reverted(list.name(), list.raw)
	return name
}

// removal is what uninstall has to do in the conf directory, and why the binary has to stay all the same.
type removal struct {
	changes []*change
	reasons []string
}

// planRemoval looks at every file that a runtime may load, not only at the first.
func (o Options) planRemoval() (*removal, error) {
	r := &removal{}
	names, err := candidates(o.ConfDir)
	if err != nil && !errors.Is(err, errNotNow) {
		return nil, err
	}
	for _, name := range names {
		if err := r.add(filepath.Join(o.ConfDir, name)); err != nil {
			return nil, err
		}
		if path := o.delegateElsewhere(name); path != "" {
			if err := r.add(path); err != nil {
				return nil, err
			}
		}
	}
	// libcni 1.3 and later find further plugins of a network one directory down.
	paths, _ := filepath.Glob(filepath.Join(o.ConfDir, "*", "*.conf"))
	for _, path := range paths {
		if raw, err := os.ReadFile(path); err == nil && namesPlugin(raw) {
			r.reasons = append(r.reasons, path+" names ip-masq")
		}
	}
	return r, nil
}

// add looks at one file. What cannot be understood may name the plugin when its owner has repaired it.
func (r *removal) add(path string) error {
	n, err := readNetwork(path)
	switch {
	case errors.Is(err, errNotNow):
		r.reasons = append(r.reasons, err.Error())
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	if err := n.understand(); err != nil {
		r.reasons = append(r.reasons, fmt.Sprintf("%s does not parse, so nobody knows whether it names ip-masq: %v", path, err))
		return nil
	}
	c := &change{network: n, after: n.raw}
	switch {
	case len(n.list.own()) > 0:
		if err := c.takeOut(); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		r.changes = append(r.changes, c)
	case isMultus(n):
		if after, err := removeFromCopy(n.raw); err == nil && !bytes.Equal(after, n.raw) {
			c.after, c.copy = after, true
			r.changes = append(r.changes, c)
		}
	}
	if namesPlugin(c.after) {
		r.reasons = append(r.reasons, path+" names ip-masq inside another plugin's configuration, which is for its owner to change")
	}
	return nil
}

// takeOut plans the file without the entry: as what it was before a conversion, where it was one.
func (c *change) takeOut() (err error) {
	if len(c.list.own()) == len(c.list.entries) {
		return errAlone
	}
	if former, conf, ok := reverted(c.name(), c.raw); ok && !c.isLink() {
		c.after, c.to, c.drop = conf, former, exists(filepath.Join(filepath.Dir(c.path), former))
		return nil
	}
	c.after, err = Remove(c.raw)
	return err
}

// exists says whether there is anything under the name, be it a link to nowhere.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
