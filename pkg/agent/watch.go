package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// watchInterval bounds how late a change of the configuration is noticed. Polling a few stat calls sees everything that
// changes a file (in place, by rename, by a ConfigMap's symlink swap, by a directory that appears later, under a mount of the
// single file) in one way; watching directories by inotify takes a case for each of them and still misses the last.
const watchInterval = 250 * time.Millisecond

// watch sends on changed whenever the configuration's fingerprint differs from the last one.
func watch(ctx context.Context, path string, changed chan<- struct{}) {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	last := fingerprint(path)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if now := fingerprint(path); now != last {
			last = now
			notify(changed)
		}
	}
}

// notify leaves one pending event: several in a row are one.
func notify(events chan<- struct{}) {
	select {
	case events <- struct{}{}:
	default:
	}
}

// fingerprint identifies the content that path leads to without reading it: the files' inodes, sizes and times, through all
// links.
func fingerprint(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return "none"
	}
	if !info.IsDir() {
		return mark(path, info)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return "unreadable"
	}
	var b strings.Builder
	for _, entry := range entries {
		name := filepath.Join(path, entry.Name())
		if info, err := os.Stat(name); err == nil {
			b.WriteString(mark(name, info))
		}
	}
	return b.String()
}

// racy is the age below which a file may change again without its times showing it: their grain is a timer tick on kernels
// before 6.13.
const racy = time.Second

// trust returns the fingerprint for comparison with later ones, or nothing while anything that it covers changed just now.
func trust(path, print string) string {
	paths := []string{path}
	if entries, err := os.ReadDir(path); err == nil {
		for _, entry := range entries {
			paths = append(paths, filepath.Join(path, entry.Name()))
		}
	}
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) < racy {
			return ""
		}
	}
	return print
}

func mark(name string, info os.FileInfo) string {
	target, _ := filepath.EvalSymlinks(name)
	return fmt.Sprintf("%s %s %d %s %v\n", name, target, info.Size(), info.ModTime().Format(time.RFC3339Nano), inode(info))
}
