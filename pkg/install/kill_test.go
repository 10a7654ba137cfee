package install

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// writeCalls are the system calls that change something. Ended at one, the program has done all before it.
var writeCalls = []string{
	"write", "copy_file_range", "sendfile", "fchmod", "fchown", "fsetxattr", "fsync", "renameat", "renameat2", "unlinkat", "symlinkat",
}

// scene is a node before a run, and the run.
type scene struct {
	name    string
	command string
	prepare func(h *host)
}

func scenes() []scene {
	single := func(h *host) { h.write("10-single.conf", bridgeConf) }
	list := func(h *host) { h.write("10-pods.conflist", bridgeList) }
	link := func(h *host) {
		h.mkdir(h.path("real"))
		h.write("real/pods", bridgeList)
		h.must(os.Symlink("real/pods", h.path("10-pods.conflist")))
	}
	after := func(prepare func(h *host)) func(h *host) {
		return func(h *host) { prepare(h); h.want(0, "", "install") }
	}
	upgrade := func(h *host) {
		h.source = pluginB()
		list(h)
		h.want(0, "", "install")
		h.write("10-pods.conflist", bridgeList)
		h.source = pluginA()
	}
	return []scene{
		{"a list", "install", list},
		{"a single plugin", "install", single},
		{"a symlink", "install", link},
		{"an upgrade", "install", upgrade},
		{"a list", "uninstall", after(list)},
		{"a single plugin", "uninstall", after(single)},
		{"a symlink", "uninstall", after(link)},
	}
}

// Killed at any system call that writes: the runtime always finds a network, who names ip-masq finds a binary that answers, and
// the next run finishes.
func TestKilledAnywhere(t *testing.T) {
	netnstest.Require(t, "strace")
	for _, s := range scenes() {
		t.Run(s.command+" "+s.name, func(t *testing.T) {
			t.Parallel()
			points := 0
			for _, call := range writeCalls {
				points += s.step(t, call, "signal=KILL")
			}
			t.Logf("killed at %d points", points)
			if points < 5 {
				t.Errorf("killed at %d points only", points)
			}
		})
	}
}

// The same where the disk is full, read-only or broken from some point on: the calls fail instead.
func TestFailingAnywhere(t *testing.T) {
	netnstest.Require(t, "strace")
	for i, s := range scenes() {
		t.Run(s.command+" "+s.name, func(t *testing.T) {
			t.Parallel()
			points := 0
			for j, call := range append(writeCalls, "openat", "flock") {
				points += s.step(t, call, "error="+[]string{"ENOSPC", "EROFS", "EIO"}[(i+j)%3])
			}
			t.Logf("failed at %d points", points)
		})
	}
}

// step runs the scene again and again, with the fault at the first call, the second, and so on, until one comes through.
func (s scene) step(t *testing.T, call, fault string) int {
	t.Helper()
	for n := 1; ; n++ {
		h := newHost(t)
		s.prepare(h)
		trace := filepath.Join(t.TempDir(), "trace")
		args := []string{"strace", "-qq", "-e", "trace=" + call, "-e", fmt.Sprintf("inject=%s:%s:when=%d", call, fault, n), "-o", trace, "--", pinnedBin(), s.command}
		r := execute(t, append(args, h.flags()...)...)
		log, _ := os.ReadFile(trace)
		if !strings.Contains(string(log), "INJECTED") && !strings.Contains(string(log), "killed by SIGKILL") {
			return n - 1
		}
		where := fmt.Sprintf("%s at the %d. %s:\n%s%s%s", fault, n, call, lastLines(string(log)), r.stdout, r.stderr)
		s.holds(t, h, where)
		if r.code == 0 {
			s.finished(t, h, "exit 0 in spite of "+where)
		}
		if again := h.run(s.command); again.code != 0 {
			t.Errorf("the next run ends with %d: %s\nafter %s", again.code, again.stderr, where)
		}
		s.finished(t, h, where)
		h.clean()
	}
}

// holds is what is true at every moment.
func (s scene) holds(t *testing.T, h *host, where string) {
	t.Helper()
	if _, err := h.loads(); err != nil {
		t.Errorf("no network any more: %v\nafter %s", err, where)
	}
	for _, name := range h.names() {
		raw, err := os.ReadFile(h.path(name))
		if err == nil && slices.Contains(loadable, filepath.Ext(name)) && namesPlugin(raw) {
			if err := h.answers(); err != nil {
				t.Errorf("%s names ip-masq: %v\nafter %s", name, err, where)
			}
		}
	}
}

func (s scene) finished(t *testing.T, h *host, where string) {
	t.Helper()
	if s.command == "install" {
		if err := h.installed(); err != nil {
			t.Errorf("%v\nafter %s", err, where)
		}
		return
	}
	for name, text := range map[string]string{"10-pods.conflist": bridgeList, "10-single.conf": bridgeConf} {
		if raw, err := os.ReadFile(h.path(name)); err == nil && string(raw) != text {
			t.Errorf("%s is not given back: %s\nafter %s", name, raw, where)
		}
	}
	if exists(h.target()) || exists(h.path("10-single.conflist")) {
		t.Errorf("not out\nafter %s", where)
	}
}

func lastLines(text string) string {
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(lines[max(0, len(lines)-4):], "")
}
