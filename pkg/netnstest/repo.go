package netnstest

import (
	"errors"
	"os"
	"path/filepath"
)

// RepoRoot is the directory of go.mod above the working directory, which for a
// test is the directory of its package.
func RepoRoot() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, missing := os.Stat(filepath.Join(dir, "go.mod")); missing == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			err = errors.New("no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
	return "", err
}

// Bin is the path of a program that `make build` made. The test ends when it is
// not there: a stale or missing binary would test nothing.
func Bin(t TB, name string) string {
	t.Helper()
	root, err := RepoRoot()
	if err != nil {
		t.Fatalf("%v", err)
	}
	path := filepath.Join(root, "bin", name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v; make build makes it", err)
	}
	return path
}
