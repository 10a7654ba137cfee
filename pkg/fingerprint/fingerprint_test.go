package fingerprint_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/fingerprint"
)

// TestOf reads as: what is there, what path is looked at, what happens to it, and whether that is seen.
func TestOf(t *testing.T) {
	write := func(name, text string) func(dir string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600) }
	}
	for _, c := range []struct {
		name, path string
		change     func(dir string) error
		seen       bool
	}{
		{"nothing", "file", func(string) error { return nil }, false},
		{"read", "file", func(dir string) error { _, err := os.ReadFile(filepath.Join(dir, "file")); return err }, false},
		{"another file", "file", write("new", "new"), false},
		{"written in place", "file", write("file", "two"), true},
		{"removed", "file", func(dir string) error { return os.Remove(filepath.Join(dir, "file")) }, true},
		{"another mode", "file", func(dir string) error { return os.Chmod(filepath.Join(dir, "file"), 0o640) }, true},
		{"replaced by one of the same size and time", "file", func(dir string) error {
			path := filepath.Join(dir, "file")
			info, err := os.Stat(path)
			return errors.Join(err, write("new", "two")(dir), os.Chtimes(filepath.Join(dir, "new"), info.ModTime(), info.ModTime()), os.Rename(filepath.Join(dir, "new"), path))
		}, true},
		{"made", "missing", write("missing", ""), true},
		{"behind a link", "link", write("file", "two"), true},
		{"the link leads elsewhere", "link", func(dir string) error {
			return errors.Join(os.Symlink("sub/file", filepath.Join(dir, "new")), os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "link")))
		}, true},
		{"a link on the way, as in a ConfigMap", "way/file", func(dir string) error {
			return errors.Join(os.Symlink("other", filepath.Join(dir, "new")), os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "way")))
		}, true},
		{"a dead link comes alive", "dead", write("nowhere", ""), true},
		{"a file in a directory", "sub", write("sub/file", "two"), true},
		{"a new file in a directory", "sub", write("sub/new", ""), true},
		{"a file of a directory's sub-directory", ".", write("sub/file", "two"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			err := errors.Join(os.Mkdir(filepath.Join(dir, "sub"), 0o700), os.Mkdir(filepath.Join(dir, "other"), 0o700),
				write("file", "one")(dir), write("sub/file", "one")(dir), write("other/file", "one")(dir),
				os.Symlink("sub", filepath.Join(dir, "way")), os.Symlink("file", filepath.Join(dir, "link")), os.Symlink("nowhere", filepath.Join(dir, "dead")))
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond) // the grain of the kernel's clock
			path := filepath.Join(dir, c.path)
			before := fingerprint.Of(path)
			if err := c.change(dir); err != nil {
				t.Fatal(err)
			}
			if seen := fingerprint.Of(path) != before; seen != c.seen {
				t.Errorf("seen is %t, want %t: %s, then %s", seen, c.seen, before, fingerprint.Of(path))
			}
		})
	}
}

func TestFresh(t *testing.T) {
	dir := t.TempDir()
	old := time.Now().Add(-time.Minute)
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	age := func(paths ...string) {
		t.Helper()
		for _, path := range paths {
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !fingerprint.Fresh(dir) || !fingerprint.Fresh(filepath.Join(dir, "a")) {
		t.Error("new files are not fresh")
	}
	age(dir, filepath.Join(dir, "a"))
	if !fingerprint.Fresh(dir) || fingerprint.Fresh(filepath.Join(dir, "a")) {
		t.Error("a directory is as fresh as the newest of its files")
	}
	age(filepath.Join(dir, "b"))
	if fingerprint.Fresh(dir) || fingerprint.Fresh(filepath.Join(dir, "missing")) {
		t.Error("what is old, or not there, is fresh")
	}
}
