package netnstest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

var sweep sync.Once

// removeStale removes what runs before this one left behind, because they were
// killed or timed out. A run that is still alive is recognised by its process.
func removeStale() {
	entries, _ := os.ReadDir(runDir)
	for _, e := range entries {
		if pid := ownerOf(e.Name()); pid > 0 && !alive(pid) {
			removeNamed(e.Name())
		}
	}
}

// ownerOf returns the process id in the name of a namespace that this package made, or 0.
func ownerOf(name string) int {
	rest, ours := strings.CutPrefix(name, prefix)
	if !ours {
		return 0
	}
	number, _, _ := strings.Cut(rest, "-")
	pid, _ := strconv.Atoi(number)
	return pid
}

func alive(pid int) bool {
	_, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid)))
	return err == nil
}

// removeNamed is best effort: what is gone already is fine.
func removeNamed(name string) {
	out, _ := exec.Command("ip", "netns", "pids", name).Output()
	for _, field := range strings.Fields(string(out)) {
		// Our own main thread may be inside just now, on behalf of Do.
		if pid, err := strconv.Atoi(field); err == nil && pid != os.Getpid() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	_ = exec.Command("ip", "netns", "del", name).Run()
}
