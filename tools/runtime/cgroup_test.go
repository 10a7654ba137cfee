package runtime

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// cgroup is below which a node's pods are, since cgroups are the whole machine's.
func (m *machine) cgroup() string { return "/" + m.Name }

var sweepCgroups sync.Once

// removeStaleCgroups removes those of runs that were killed. The names begin as netnstest's do, with the process.
func removeStaleCgroups() {
	for _, top := range topCgroups("ipmasq-*-node") {
		pid := strings.Split(filepath.Base(top), "-")[1]
		if _, err := os.Stat(filepath.Join("/proc", pid)); err != nil {
			removeCgroups(filepath.Base(top))
		}
	}
}

// removeCgroups removes empty ones of that name, their children first.
func removeCgroups(name string) {
	for _, top := range topCgroups(name) {
		var dirs []string
		_ = filepath.WalkDir(top, func(path string, e os.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for _, dir := range slices.Backward(dirs) {
			_ = os.Remove(dir)
		}
	}
}

// topCgroups finds them in whatever hierarchies there are.
func topCgroups(pattern string) []string {
	one, _ := filepath.Glob(filepath.Join("/sys/fs/cgroup", pattern))
	more, _ := filepath.Glob(filepath.Join("/sys/fs/cgroup/*", pattern))
	return append(one, more...)
}
