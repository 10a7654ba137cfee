package atomicfile_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/atomicfile"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

var writers = map[string]func(string, []byte, os.FileMode) error{"Write": atomicfile.Write, "WriteSync": atomicfile.WriteSync}

func TestWrite(t *testing.T) {
	for name, write := range writers {
		t.Run(name, func(t *testing.T) {
			old := syscall.Umask(0o077) // the mode is what was asked for, whatever the umask
			defer syscall.Umask(old)
			path := filepath.Join(t.TempDir(), "made", "on", "demand")
			for _, content := range []string{"one", "two, longer", ""} {
				if err := write(path, []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
				info, err := os.Stat(path)
				if got, _ := os.ReadFile(path); err != nil || string(got) != content || info.Mode() != 0o644 {
					t.Errorf("holds %q, mode %v, %v; want %q", got, info.Mode(), err, content)
				}
			}
			onlyFile(t, path)
		})
	}
}

func onlyFile(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("beside %s: %v, %v", filepath.Base(path), entries, err)
	}
}

// TestWriteOnAFullDisk: the old content stays, nothing is left over, and the error says why.
func TestWriteOnAFullDisk(t *testing.T) {
	netnstest.Require(t, "mount")
	for name, write := range writers {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := syscall.Mount("none", dir, "tmpfs", 0, "size=64k"); err != nil {
				t.Fatal(err)
			}
			netnstest.OnExit(t, func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
			path := filepath.Join(dir, "file")
			if err := write(path, []byte("old"), 0o644); err != nil {
				t.Fatal(err)
			}
			err := write(path, bytes.Repeat([]byte("x"), 1<<20), 0o644)
			if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %v", err)
			}
			if got, _ := os.ReadFile(path); string(got) != "old" {
				t.Errorf("holds %d bytes, want the old content", len(got))
			}
			onlyFile(t, path)
		})
	}
}

func TestWriteErrors(t *testing.T) {
	dir := t.TempDir()
	file, sub := filepath.Join(dir, "file"), filepath.Join(dir, "sub")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Mkdir(sub, 0o700)); err != nil {
		t.Fatal(err)
	}
	for name, write := range writers {
		for what, path := range map[string]string{"below a file": filepath.Join(file, "x"), "over a directory": sub} {
			if err := write(path, nil, 0o600); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("%s %s: %v", name, what, err)
			}
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("left over: %v", entries)
	}
}

// TestWriteIsAtomic reads while two writers replace the file: every reading is one of the two contents, whole.
func TestWriteIsAtomic(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	contents := [][]byte{bytes.Repeat([]byte("a"), 100_000), bytes.Repeat([]byte("b"), 50_000)}
	if err := atomicfile.Write(path, contents[0], 0o600); err != nil {
		t.Fatal(err)
	}
	var writing sync.WaitGroup
	for _, content := range contents {
		writing.Go(func() {
			for range 200 {
				if err := atomicfile.Write(path, content, 0o600); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { writing.Wait(); close(done) }()
	for {
		select {
		case <-done:
			return
		default:
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, contents[0]) && !bytes.Equal(got, contents[1]) {
			t.Errorf("read %d bytes, %v", len(got), err)
		}
	}
}

// TestStage: nothing is at the place before the commit, and nothing beside it after that or a discard.
func TestStage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	stage := func() *atomicfile.Staged {
		t.Helper()
		s, err := atomicfile.Stage(path, []byte("new"), func(f *os.File) error { return f.Chmod(0o640) })
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(s.Temp); string(got) != "new" {
			t.Errorf("staged %q", got)
		}
		return s
	}
	stage().Discard()
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 0 {
		t.Errorf("left after a discard: %v", entries)
	}
	s := stage()
	if err := s.CommitNew(); err != nil {
		t.Fatal(err)
	}
	s.Discard()
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	second := stage()
	if err := second.CommitNew(); !errors.Is(err, os.ErrExist) {
		t.Errorf("created over a file: %v", err)
	}
	if err := second.Commit(); err != nil {
		t.Error(err)
	}
	onlyFile(t, path)
	if err := errors.Join(atomicfile.Remove(path), atomicfile.Remove(path)); err != nil {
		t.Error(err)
	}
	if _, err := atomicfile.Stage(path, nil, func(*os.File) error { return syscall.EPERM }); !errors.Is(err, syscall.EPERM) {
		t.Errorf("error %v", err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
}

// TestStageLink: the link is replaced by one that leads to the same.
func TestStageLink(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "link")
	if err := os.Symlink("../elsewhere", path); err != nil {
		t.Fatal(err)
	}
	before, _ := os.Lstat(path)
	one, err := atomicfile.StageLink(path)
	two, secondErr := atomicfile.StageLink(path)
	if err := errors.Join(err, secondErr); err != nil {
		t.Fatal(err)
	}
	two.Discard()
	if err := one.Commit(); err != nil {
		t.Error(err)
	}
	after, _ := os.Lstat(path)
	if target, err := os.Readlink(path); target != "../elsewhere" || os.SameFile(before, after) {
		t.Errorf("leads to %q (%v), the same as before: %t", target, err, os.SameFile(before, after))
	}
	onlyFile(t, path)
}

// TestSweep removes what killed writes left, those of 0.1.0 too, and nothing else.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{atomicfile.TempPrefix + "1", ".ip-masq-installer.tmp-2", ".other.tmp-3", "file"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	atomicfile.Sweep(dir)
	atomicfile.Sweep(filepath.Join(dir, "missing"))
	var left []string
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		left = append(left, entry.Name())
	}
	if strings.Join(left, " ") != ".other.tmp-3 file" {
		t.Errorf("left: %v", left)
	}
}
