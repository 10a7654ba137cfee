package translog

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func content(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(data)
}

// TestRotation: lines stay whole, the oldest go, and nobody but root reads them.
func TestRotation(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	for i := 3; i < 6; i++ { // of a time when more files were kept
		if err := os.WriteFile(rotated(path, i), []byte("older\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f := &file{path: path, maxSize: 10, maxFiles: 3}
	for _, line := range []string{"one 1\n", "two 2\n", "three\n", "a longer line\n", "five\n", "six6\n"} {
		if err := f.write([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	f.end()
	for i, want := range []string{"five\nsix6\n", "a longer line\n", "three\n", "", "", ""} {
		if got := content(t, rotated(path, i)); got != want {
			t.Errorf("file %d: %q, want %q", i, got, want)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// TestReopen: a new run goes on in the file, behind a line that a crash cut; a file that was moved away is left where it is.
func TestReopen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("whole\ncu"), 0o644); err != nil {
		t.Fatal(err)
	}
	f := &file{path: path, maxSize: 1 << 20, maxFiles: 2}
	write := func(line string) {
		t.Helper()
		if err := f.write([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	write("next\n")
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	write("new file\n")
	f.end()
	if got := content(t, path+".moved"); got != "whole\ncu\nnext\n" {
		t.Errorf("%q", got)
	}
	if got := content(t, path); got != "new file\n" {
		t.Errorf("%q", got)
	}
	if info, err := os.Stat(path + ".moved"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// TestFullDisk: a real one. Lines are lost, and no part of one stays; when there is room again, writing goes on.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16k"); err != nil {
		if os.Getenv("CI") == "" {
			t.Skip("cannot mount: ", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	f := &file{path: filepath.Join(dir, "log"), maxSize: 1 << 20, maxFiles: 2}
	line := []byte(strings.Repeat("x", 5000) + "\n")
	var err error
	written := 0
	for range 10 {
		if err = f.write(line); err != nil {
			break
		}
		written++
	}
	if !errors.Is(err, syscall.ENOSPC) || written != 3 || len(content(t, f.path)) != 3*len(line) {
		t.Fatalf("%v, %d written, %d bytes", err, written, len(content(t, f.path)))
	}
	if err := os.Truncate(f.path, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.write(line); err != nil || len(content(t, f.path)) != len(line) {
		t.Errorf("%v, %d bytes", err, len(content(t, f.path)))
	}
	f.end()
}
