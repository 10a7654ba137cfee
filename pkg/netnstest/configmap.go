package netnstest

import (
	"fmt"
	"os"
	"path/filepath"
)

// ConfigMap is a directory as the kubelet mounts a ConfigMap: the file that one
// reads is a link to ..data/KEY, and ..data a link to a directory that is new
// with every update.
type ConfigMap struct {
	Dir  string
	Path string // Dir/KEY, which an agent is told to read

	key     string
	version int
}

// NewConfigMap makes one with a single key.
func NewConfigMap(t TB, key, content string) *ConfigMap {
	t.Helper()
	dir := tempDir(t)
	m := &ConfigMap{Dir: dir, Path: filepath.Join(dir, key), key: key}
	if err := os.Symlink(filepath.Join("..data", key), m.Path); err != nil {
		t.Fatalf("%v", err)
	}
	m.Update(t, content)
	return m
}

// Update replaces the content as the kubelet does: a new directory, ..data
// renamed over to point to it, the old directory removed. The path that is read
// never changes, and no write ever happens to a file that is in use.
func (m *ConfigMap) Update(t TB, content string) {
	t.Helper()
	old, _ := os.Readlink(filepath.Join(m.Dir, "..data"))
	m.version++
	fresh := fmt.Sprintf("..version_%d", m.version)
	if err := m.swap(fresh, content); err != nil {
		t.Fatalf("update of %s: %v", m.Path, err)
	}
	if old != "" {
		_ = os.RemoveAll(filepath.Join(m.Dir, old))
	}
}

func (m *ConfigMap) swap(fresh, content string) error {
	if err := os.Mkdir(filepath.Join(m.Dir, fresh), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(m.Dir, fresh, m.key), []byte(content), 0o644); err != nil {
		return err
	}
	link := filepath.Join(m.Dir, "..data_tmp")
	if err := os.Symlink(fresh, link); err != nil {
		return err
	}
	return os.Rename(link, filepath.Join(m.Dir, "..data"))
}
