package install

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// change is what shall become of one file of the conf directory, a value that can be compared, printed, or carried out.
type change struct {
	*confFile
	after []byte
	to    string // the name under which the file goes on, where that is another one
	over  bool   // something of ours is under that name, and goes
	drop  bool   // the file goes, for what is under that name
}

// put is a change on its way: everything that it needs is on disk, under names that no runtime loads.
type put struct {
	change
	file *staged
	link *staged // the same symlink once more
}

func (c change) place() string {
	if c.to != "" {
		return filepath.Join(filepath.Dir(c.path), c.to)
	}
	return c.real
}

// stage prepares the change. The directory of a symlinked file is swept here, under the lock of the directory that has the
// link.
func (c change) stage() (*put, error) {
	p := &put{change: c}
	if c.drop {
		return p, nil
	}
	var err error
	if c.isLink() {
		sweep(filepath.Dir(c.real))
		if p.link, err = relink(c.path); err != nil {
			return nil, err
		}
	}
	if p.file, err = stage(c.place(), bytes.NewReader(c.after), like(c.confFile)); err != nil {
		p.discard()
		return nil, err
	}
	return p, nil
}

// discard takes back what was not committed.
func (p *put) discard() {
	if p == nil {
		return
	}
	p.file.discard()
	p.link.discard()
}

// commit carries the change out. At every moment the directory has a complete network under a loadable name.
func (p *put) commit() error {
	if err := p.unchanged(); err != nil {
		return err
	}
	if p.to != "" {
		return p.move()
	}
	if err := p.file.commit(); err != nil || p.link == nil {
		return err
	}
	return p.link.commit()
}

// move puts the file under its other name and then takes the former one away: while both are there they are one network.
func (p *put) move() error {
	var err error
	switch {
	case p.drop:
	case p.over:
		err = p.file.commit()
	default:
		err = p.file.commitNew()
	}
	if err == nil {
		err = p.unchanged()
	}
	if err != nil {
		return err
	}
	return unlink(p.path)
}

// relink stages a symlink over itself. An edit behind a symlink is no event in the directory that the runtime watches, and
// containerd ignores the creation of files; it sees the rename. It is staged first: should we be killed between edit and
// rename, the next run's sweep of the staged link is an event too.
func relink(path string) (*staged, error) {
	target, err := os.Readlink(path)
	if err != nil {
		return nil, fmt.Errorf("read the symlink: %w", err)
	}
	for n := range 100 {
		s := &staged{temp: filepath.Join(filepath.Dir(path), fmt.Sprintf("%slink-%d", tempPrefix, n)), path: path}
		err = os.Symlink(target, s.temp)
		if err == nil {
			return s, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	return nil, fmt.Errorf("write beside %s: %w", path, err)
}
