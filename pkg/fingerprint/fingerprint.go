// Package fingerprint tells whether files may be others than before, by their identity, size and times. It refuses to read
// them.
package fingerprint

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Of is another text whenever what path leads to may have changed: the file, each link on the way to it, and in a directory the
// files in it, through their links. Of what is not there it is "none".
func Of(path string) string {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return file(path)
	}
	var b strings.Builder
	entries, err := os.ReadDir(path)
	if err != nil {
		return "unreadable"
	}
	for _, entry := range entries {
		b.WriteString(entry.Name() + " " + file(filepath.Join(path, entry.Name())) + "\n")
	}
	return b.String()
}

// file is of one name and of what that leads to.
func file(path string) string {
	link, err := os.Lstat(path)
	if err != nil {
		return "none"
	}
	if link.Mode()&os.ModeSymlink == 0 {
		return Info(link)
	}
	target, _ := filepath.EvalSymlinks(path)
	info, err := os.Stat(path)
	if err != nil {
		return Info(link) + " leads nowhere"
	}
	return Info(link) + " " + target + " " + Info(info)
}

// Info is of a file that was looked at: another one after it was replaced, written, or given to another user.
func Info(info os.FileInfo) string {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprint(stat.Dev, stat.Ino, stat.Size, stat.Mtim, stat.Ctim, stat.Mode)
}

// Grain is the age below which a file may change again without its times showing it: they are those of a timer tick on kernels
// before 6.13.
const Grain = time.Second

// Fresh says whether something that Of looks at changed within the last Grain, so that an equal fingerprint later says nothing.
func Fresh(path string) bool {
	paths := []string{path}
	if entries, err := os.ReadDir(path); err == nil {
		for _, entry := range entries {
			paths = append(paths, filepath.Join(path, entry.Name()))
		}
	}
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) < Grain {
			return true
		}
	}
	return false
}
