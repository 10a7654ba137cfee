package plainfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/plainfile"
)

// TestLikeOS: what package os says of a path, these say as well.
func TestLikeOS(t *testing.T) {
	dir := t.TempDir()
	file, empty, full := filepath.Join(dir, "file"), filepath.Join(dir, "empty"), filepath.Join(dir, "full")
	content := strings.Repeat("0123456789", 1000)
	for _, err := range []error{
		os.WriteFile(file, []byte(content), 0o600), os.Mkdir(empty, 0o700), os.MkdirAll(filepath.Join(full, "x"), 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{file, empty, filepath.Join(dir, "missing"), filepath.Join(file, "below"), ""} {
		want, wantErr := os.ReadFile(path)
		got, err := plainfile.Read(path)
		if string(got) != string(want) || !sameError(err, wantErr) {
			t.Errorf("Read(%s): %d bytes, %v; want %d bytes, %v", path, len(got), err, len(want), wantErr)
		}
	}
	for path, want := range map[string]error{
		file: nil, empty: nil, filepath.Join(dir, "missing"): nil, full: os.Remove(full), filepath.Join(dir, "full", "x", "y", "z"): nil,
	} {
		if err := plainfile.Remove(path); !sameError(err, want) {
			t.Errorf("Remove(%s): %v, want %v", path, err, want)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("%v are left, want the full directory alone", left)
	}
}

// sameError compares what callers compare: the system's number.
func sameError(a, b error) bool {
	var x, y *fs.PathError
	if !errors.As(a, &x) || !errors.As(b, &y) {
		return (a == nil) == (b == nil)
	}
	return errors.Is(x.Err, y.Err)
}
