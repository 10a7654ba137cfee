package dirwatch

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// seenPaths collects what a watch reports.
type seenPaths struct {
	mu    sync.Mutex
	paths map[string]int
}

func (s *seenPaths) add(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paths[path]++
}

func (s *seenPaths) count(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.paths[path]
}

// TestWatch: entries are reported in a directory that appears late, is removed and made again, is renamed away, and whose parent
// is. What is removed is told apart, and what lies elsewhere is no entry.
func TestWatch(t *testing.T) {
	root := t.TempDir()
	parent := filepath.Join(root, "lib", "cni")
	results := filepath.Join(parent, "results")
	s, removed := &seenPaths{paths: map[string]int{}}, &seenPaths{paths: map[string]int{}}
	if err := Watch(t.Context(), []string{results}, s.add, removed.add); err != nil {
		t.Fatal(err)
	}
	number := 0
	entry := func(what string) {
		t.Helper()
		number++
		path := filepath.Join(results, fmt.Sprint("net-c-", number))
		anything := s.count("")
		if err := os.MkdirAll(results, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		netnstest.Eventually(t, netnstest.Limit(time.Second), what, func() bool { return s.count(path) > 0 || s.count("") > anything })
		// What is written while the directories are found is in a report that anything may have changed.
		before, anything := s.count(path), s.count("")
		if err := os.WriteFile(path, []byte(`{"a": 1}`), 0o600); err != nil {
			t.Fatal(err)
		}
		netnstest.Eventually(t, netnstest.Limit(time.Second), what+", written again", func() bool { return s.count(path) > before || s.count("") > anything })
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	entry("a directory that was not there")
	must(os.RemoveAll(results))
	entry("made again at once")
	must(os.RemoveAll(filepath.Join(root, "lib")))
	time.Sleep(50 * time.Millisecond)
	entry("with its parents made again")
	must(os.Rename(results, results+".old"))
	entry("renamed away")
	must(os.Rename(parent, parent+".old"))
	entry("its parent renamed away")

	path := filepath.Join(results, fmt.Sprint("net-c-", number))
	time.Sleep(50 * time.Millisecond)
	before, anything := s.count(path), s.count("")
	must(os.Remove(path))
	netnstest.Eventually(t, netnstest.Limit(time.Second), "removed", func() bool { return removed.count(path) == 1 })
	must(os.WriteFile(filepath.Join(parent, "another"), nil, 0o600))
	must(os.WriteFile(filepath.Join(parent+".old", "results", "net-c-9"), nil, 0o600))
	time.Sleep(100 * time.Millisecond)
	if s.count(path) != before || s.count("") != anything {
		t.Errorf("reported what is no new entry: %v", s.paths)
	}
}

func TestWatchEnds(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	s := &seenPaths{paths: map[string]int{}}
	if err := Watch(ctx, []string{dir}, s.add, s.add); err != nil {
		t.Fatal(err)
	}
	cancel()
	time.Sleep(50 * time.Millisecond)
	path := filepath.Join(dir, "a")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	if s.count(path) > 0 {
		t.Error("reported after the end")
	}
}
