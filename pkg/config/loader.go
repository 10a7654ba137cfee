package config

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"
)

// Loader reads the configuration as often as it is asked, and remembers what every file said when it was last good, so that a
// mistake in one file of a directory takes nothing away from the others.
type Loader struct {
	opts Options
	last []file // those of the last Config, in their order
}

// NewLoader returns a Loader that has read nothing.
func NewLoader(opts Options) *Loader { return &Loader{opts: opts} }

// Loaded is what a Loader found.
type Loaded struct {
	// Config is the whole configuration. Beside an error it is what holds in spite of it, if Usable says so: the files that are
	// good, and of each other one what it said when it was last good, if ever.
	Config   Config
	Findings []Finding
	Usable   bool
}

// Load reads the configuration. The error is that of the function Load.
func (l *Loader) Load() (Loaded, error) {
	r := &report{}
	all, good := readAll(l.opts, r)
	m := merge(all, l.opts, r)
	if err := r.err(); err != nil {
		c, usable := l.salvage(good, r)
		return Loaded{c, r.findings, usable}, err
	}
	hash := sha256.New()
	for _, f := range all {
		_, _ = hash.Write(f.data)
	}
	m.config.Hash = hex.EncodeToString(hash.Sum(nil))
	l.keep(all)
	return Loaded{m.config, r.findings, true}, nil
}

// keep remembers files without their text.
func (l *Loader) keep(files []file) {
	l.last = slices.Clone(files)
	for i := range l.last {
		l.last[i].data = nil
	}
}

// salvage makes a configuration in spite of errors: it begins with what the files said when they were last good, those that are gone
// left out, and takes over what they say now, one by one, where that is good by itself and with the rest.
func (l *Loader) salvage(good []file, r *report) (Config, bool) {
	there := func(name string) bool {
		return slices.ContainsFunc(good, func(f file) bool { return f.name == name }) ||
			slices.ContainsFunc(r.findings, func(f Finding) bool { return f.File == name && f.Severity == Error })
	}
	remembered := func(f file) bool { return f.name == l.opts.Path }
	if there(l.opts.Path) && !slices.ContainsFunc(l.last, remembered) && len(l.last) > 0 {
		return Config{}, false // the directory cannot be read, or is none any more
	}
	chosen := slices.DeleteFunc(slices.Clone(l.last), func(f file) bool { return !there(f.name) })
	c, ok := l.try(chosen)
	if !ok {
		return Config{}, false
	}
	for _, f := range good {
		at, known := slices.BinarySearchFunc(chosen, f.name, func(g file, name string) int { return cmp.Compare(g.name, name) })
		next := slices.Clone(chosen)
		switch {
		case known && next[at].hash == f.hash:
			continue
		case known:
			next[at] = f
		default:
			next = slices.Insert(next, at, f)
		}
		if with, ok := l.try(next); ok {
			c, chosen = with, next
		}
	}
	l.keep(chosen)
	return c, true
}

// try merges files and reports whether they go together.
func (l *Loader) try(files []file) (Config, bool) {
	r := &report{}
	m := merge(files, l.opts, r)
	return m.config, !r.failed()
}
