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
