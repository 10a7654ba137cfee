package install

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// An unprivileged user locks all that he can open: the CNI directories, and the lock file that an earlier version left open to
// everybody. No command waits for him.
func TestLocksOfAnUnprivilegedUser(t *testing.T) {
	t.Parallel()
	netnstest.Require(t, "setpriv", "flock", "bash")
	for name, prepare := range map[string]func(h *host) string{
		"a lock of an earlier version": func(h *host) string {
			h.mkdir(h.state)
			h.must(os.WriteFile(filepath.Join(h.state, watchLock), nil, 0o644))
			h.must(os.Chmod(filepath.Join(h.state, watchLock), 0o644))
			return filepath.Join(h.state, watchLock)
		},
		"no state directory": func(h *host) string { return h.conf },
		"none can be made":   func(h *host) string { h.noState(); return h.bin },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.write("10-a.conflist", bridgeList)
			h.must(os.Chmod(h.path("10-a.conflist"), 0o644))
			want := prepare(h)
			h.want(0, "", "install")
			locked := testkit.LockAsNobody(t, h.bin, h.conf, filepath.Dir(h.state))
			if !slices.Contains(locked, want) || !slices.Contains(locked, h.conf) || !slices.Contains(locked, h.target()) {
				t.Fatalf("the user locked %v only", locked)
			}
			start := time.Now()
			h.want(0, "", "install")
			w := h.watch(t)
			within(t, netnstest.Limit(10*time.Second), "ready", w.ready)
			h.want(3, "watch process", "uninstall")
			h.write("10-a.conflist", bridgeList)
			within(t, netnstest.Limit(10*time.Second), "repaired", h.installed)
			for _, path := range testkit.LockAsNobody(t, filepath.Dir(h.state)) {
				if base := filepath.Base(path); base == watchLock || base == passLock {
					t.Errorf("the user can lock %s", path)
				}
			}
			if code := w.end(); code != 0 {
				t.Errorf("exit %d", code)
			}
			h.want(0, "", "uninstall")
			if took := time.Since(start); took > netnstest.Limit(20*time.Second) {
				t.Errorf("it took %s", took)
			}
		})
	}
}

// noState makes a state directory impossible: a file is in its way.
func (h *host) noState() {
	h.t.Helper()
	h.state = filepath.Join(filepath.Dir(h.state), "file", "run")
	h.must(os.WriteFile(filepath.Dir(h.state), nil, 0o600))
}

// Where no state directory can be made, installers keep out of each other's way all the same, uninstall notices a watch, and
// nothing is left.
func TestNoStateDirectory(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.noState()
	h.write("10-a.conflist", bridgeList)
	for _, command := range []string{"install", "uninstall", "install"} {
		h.atOnce(6, command)
	}
	h.must(h.installed())
	w := h.watch(t)
	within(t, netnstest.Limit(10*time.Second), "ready", w.ready)
	h.want(3, "watch "+h.bin, "uninstall")
	h.want(3, "watch "+h.bin, "uninstall", "--dry-run")
	if code := w.end(); code != 0 {
		t.Errorf("exit %d", code)
	}
	h.want(0, "", "uninstall")
	if files, _ := os.ReadDir(h.bin); len(files) != 0 || h.read(h.path("10-a.conflist")) != bridgeList {
		t.Errorf("left in %s: %v", h.bin, files)
	}
}

// What is in the state directory before and after an install is the same: no lock, and no directory, stays.
func TestLocksLeaveNothing(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("10-a.conflist", bridgeList)
	h.want(0, "", "install")
	if exists(h.state) {
		t.Error("the state directory was made and left")
	}
	h.mkdir(h.state)
	h.want(0, "", "install", `--entry={"type":"ip-masq","x":1}`)
	if files, err := os.ReadDir(h.state); err != nil || len(files) != 0 {
		t.Errorf("left: %v %v", files, err)
	}
}

// The lock of a watch of an earlier version, which everybody could read, still keeps uninstall off the node.
func TestEarlierWatchRuns(t *testing.T) {
	t.Parallel()
	netnstest.Require(t, "flock")
	h := newHost(t)
	h.write("10-a.conflist", bridgeList)
	h.want(0, "", "install")
	h.mkdir(h.state)
	path := filepath.Join(h.state, watchLock)
	h.must(os.WriteFile(path, nil, 0o644))
	h.must(os.Chmod(path, 0o644))
	earlier := exec.Command("flock", "-s", path, "sh", "-c", "echo locked; exec sleep 1000")
	earlier.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := earlier.StdoutPipe()
	h.must(err)
	h.must(earlier.Start())
	end := func() { _ = syscall.Kill(-earlier.Process.Pid, syscall.SIGKILL); _ = earlier.Wait() }
	t.Cleanup(end)
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	h.want(3, "watch (flock)", "uninstall")
	h.want(3, "watch (flock)", "uninstall", "--dry-run")
	end()
	h.want(0, "", "uninstall")
}
