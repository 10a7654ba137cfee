package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// removal is what uninstall has to do in the conf directory, and why the binary has to stay all the same.
type removal struct {
	changes []change
	reasons []string
}

func (o Options) removal() (*removal, error) {
	r := &removal{}
	names, err := candidates(o.ConfDir)
	if errors.Is(err, errNotNow) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := r.add(filepath.Join(o.ConfDir, name)); err != nil {
			return nil, err
		}
	}
	r.addDropIns(o.ConfDir)
	return r, nil
}

// add looks at one file. What cannot be understood may name us when its owner has repaired it.
func (r *removal) add(path string) error {
	file, err := readFile(path)
	switch {
	case errors.Is(err, errNotNow):
		r.reasons = append(r.reasons, err.Error())
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	l, err := understand(file)
	if err != nil {
		r.reasons = append(r.reasons, fmt.Sprintf("%s does not parse, so nobody knows whether it names ip-masq: %v", path, err))
		return nil
	}
	c := change{confFile: file, after: file.raw}
	if len(l.ours()) > 0 {
		if c, err = withoutUs(file, l); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		r.changes = append(r.changes, c)
	}
	if namesUs(c.after) {
		r.reasons = append(r.reasons, path+" names ip-masq inside another plugin's configuration, which is for its owner to change")
	}
	return nil
}

func withoutUs(file *confFile, l *conflist) (change, error) {
	if len(l.ours()) == len(l.entries) {
		return change{}, errAlone
	}
	if former, conf, ok := reverted(file.name(), file.raw); ok && !file.isLink() {
		drop := exists(filepath.Join(filepath.Dir(file.path), former))
		return change{confFile: file, after: conf, to: former, drop: drop}, nil
	}
	after, err := Remove(file.raw)
	return change{confFile: file, after: after}, err
}

// addDropIns looks where libcni 1.3 and later find further plugins of a network, one directory down.
func (r *removal) addDropIns(dir string) {
	paths, _ := filepath.Glob(filepath.Join(dir, "*", "*.conf"))
	for _, path := range paths {
		if raw, err := os.ReadFile(path); err == nil && namesUs(raw) {
			r.reasons = append(r.reasons, path+" names ip-masq")
		}
	}
}
