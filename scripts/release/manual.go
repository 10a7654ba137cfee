package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/ip-masq/ip-masq-cni/scripts/artifact"
)

// manual returns the manual pages and the shells' completions, by their paths in an archive. tools/man writes them, dated as
// the source is.
func manual(src artifact.Source) (map[string][]byte, error) {
	dir, err := os.MkdirTemp("", "ip-masq-man-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	cmd := exec.Command("go", "run", "-C", "tools/man", ".", "-o", dir, "-version", src.Version)
	cmd.Env = append(os.Environ(), fmt.Sprintf("SOURCE_DATE_EPOCH=%d", src.Created.Unix()))
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("tools/man: %w", err)
	}
	files := map[string][]byte{}
	err = fs.WalkDir(os.DirFS(dir), ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, file))
		files[file] = data
		return err
	})
	return files, err
}
