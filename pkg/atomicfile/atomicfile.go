// Package atomicfile replaces files in one step: a reader sees the old content or the new, a full disk loses nothing, and a
// kill leaves at most a temporary file whose name starts with a dot and ends in no extension that any program loads.
//
// It refuses to edit in place and to follow a policy of its own about which file is right.
package atomicfile

import (
	"fmt"
	"os"
	"path/filepath"
)

// Write replaces the file at path. The directory is made when missing. Nothing is synced: what must survive a power loss
// goes through WriteSync.
func Write(path string, data []byte, mode os.FileMode) error {
	return write(path, data, mode, func(*os.File) error { return nil })
}

// WriteSync is Write for files that must survive a power loss: the content is on disk before the name is, and the name when
// it returns.
func WriteSync(path string, data []byte, mode os.FileMode) error {
	if err := write(path, data, mode, (*os.File).Sync); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func write(path string, data []byte, mode os.FileMode, sync func(*os.File) error) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make directory for %s: %w", path, err)
	}
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temp.Name())
		}
	}()
	if err := fill(temp, data, mode, sync); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	return nil
}

func fill(f *os.File, data []byte, mode os.FileMode, sync func(*os.File) error) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = sync(f)
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer func() { _ = d.Close() }()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}
