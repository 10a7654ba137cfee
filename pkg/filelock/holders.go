package filelock

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Process is one that holds a lock.
type Process struct {
	PID  int
	Name string
}

func (p Process) String() string { return fmt.Sprintf("process %d (%s)", p.PID, p.Name) }

// holders are the processes of this user that hold a lock on the file at path. The kernel names who took it; that is believed
// only of a process that is alive, runs as this user in every respect, and has the file open: another user's can be neither a
// reason to wait nor an answer to who is in the way.
func holders(path string) []Process {
	info, err := os.Lstat(path)
	if err != nil {
		return nil
	}
	locks, _ := os.ReadFile("/proc/locks")
	var found []Process
	for line := range strings.Lines(string(locks)) {
		// "1: FLOCK  ADVISORY  WRITE 4711 00:1b:1234 0 EOF"; one that waits has "->" behind the number.
		fields := strings.Fields(line)
		if len(fields) < 6 || fields[1] != "FLOCK" || !strings.HasSuffix(fields[5], inode(info)) {
			continue
		}
		pid, err := strconv.Atoi(fields[4])
		if err == nil && sameUser(pid) && hasOpen(pid, info) {
			name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
			found = append(found, Process{pid, strings.TrimSpace(string(name))})
		}
	}
	return found
}

// inode is the end of a lock's identity in /proc/locks. The device before it is another one than stat's on some file systems.
func inode(info os.FileInfo) string {
	stat, _ := info.Sys().(*syscall.Stat_t)
	return ":" + strconv.FormatUint(stat.Ino, 10)
}

// sameUser looks at the real, effective, saved and file system user: a program with the set-user-ID bit, which any user may
// start with a file open, has root's in some of them only.
func sameUser(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	_, line, _ := strings.Cut(string(status), "\nUid:")
	line, _, _ = strings.Cut(line, "\n")
	users := strings.Fields(line)
	for _, user := range users {
		if user != strconv.Itoa(os.Geteuid()) {
			return false
		}
	}
	return len(users) > 0
}

func hasOpen(pid int, file os.FileInfo) bool {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, link := range links {
		if info, err := os.Stat(link); err == nil && os.SameFile(info, file) {
			return true
		}
	}
	return false
}
