package filelock_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/filelock"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// newPath is a lock in a directory that everybody may enter and read, as /run/ip-masq-agent is where the kubelet made it.
func newPath(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "lock")
}

// heldBy has another process lock a file, and returns its id and what ends it. prefix changes the process's user.
func heldBy(t *testing.T, path, mode string, prefix ...string) (pid int, end func()) {
	t.Helper()
	cmd := exec.Command("flock", mode, path, "sh", "-c", "echo locked; exec sleep 1000")
	if len(prefix) > 0 {
		cmd = exec.Command(prefix[0], append(prefix[1:], cmd.Args...)...)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); _ = cmd.Wait() })
	t.Cleanup(end)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "locked\n" {
		t.Fatalf("%v did not lock: %q, %v", cmd.Args, line, err)
	}
	return cmd.Process.Pid, end
}

var asNobody = []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}

// earlier makes the lock file of a version that gave it mode 0644.
func earlier(t *testing.T, path string) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path, []byte("4711\n"), 0o644), os.Chmod(path, 0o644)); err != nil {
		t.Fatal(err)
	}
}

// try takes the lock, or returns who holds it.
func try(t *testing.T, path string, mode filelock.Mode) (*filelock.Lock, *filelock.HeldError) {
	t.Helper()
	lock, err := filelock.Try(path, mode)
	var held *filelock.HeldError
	if err != nil && !errors.As(err, &held) {
		t.Fatal(err)
	}
	return lock, held
}

func TestModes(t *testing.T) {
	for _, c := range []struct {
		held, wanted filelock.Mode
		granted      bool
	}{
		{filelock.Shared, filelock.Shared, true},
		{filelock.Shared, filelock.Exclusive, false},
		{filelock.Exclusive, filelock.Shared, false},
		{filelock.Exclusive, filelock.Exclusive, false},
	} {
		path := filepath.Join(t.TempDir(), "made", "on", "demand", "lock")
		first, _ := try(t, path, c.held)
		second, held := try(t, path, c.wanted)
		if (second != nil) != c.granted {
			t.Errorf("%v beside %v: granted is %t, want %t", c.wanted, c.held, second != nil, c.granted)
		}
		if err := filelock.Check(path, c.wanted); (err == nil) != c.granted {
			t.Errorf("%v beside %v: Check says %v", c.wanted, c.held, err)
		}
		if !c.granted && !strings.Contains(held.Error(), fmt.Sprintf("%s is held by process %d (filelock", path, os.Getpid())) {
			t.Errorf("error %v", held)
		}
		if c.granted {
			second.Release()
		}
		first.Release()
		if third, held := try(t, path, filelock.Exclusive); held != nil {
			t.Errorf("not free after its release: %v", held)
		} else {
			third.Release()
		}
		for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700 | os.ModeDir} {
			if info, err := os.Stat(name); err != nil || info.Mode() != want {
				t.Errorf("%s has mode %v, want %v (%v)", name, info.Mode(), want, err)
			}
		}
	}
}

// TestUnprivilegedUser: whoever is not this user can neither lock what is locked here nor keep anybody out, whatever an
// earlier version left to him, and is never named.
func TestUnprivilegedUser(t *testing.T) {
	netnstest.Require(t, "setpriv", "flock", "sh")
	for name, prepare := range map[string]func(t *testing.T, path string){
		"nothing there":                       func(*testing.T, string) {},
		"the file of an earlier version":      earlier,
		"the same, locked by the user":        func(t *testing.T, path string) { earlier(t, path); heldBy(t, path, "-x", asNobody...) },
		"the same, locked shared by the user": func(t *testing.T, path string) { earlier(t, path); heldBy(t, path, "-s", asNobody...) },
		"the same, then closed to others": func(t *testing.T, path string) {
			earlier(t, path)
			heldBy(t, path, "-x", asNobody...)
			chmod(t, path, 0o640)
		},
		"locked by a set-user-ID program":       func(t *testing.T, path string) { earlier(t, path); heldBy(t, path, "-x", "setpriv", "--ruid=65534") },
		"locked by a program of another effect": func(t *testing.T, path string) { earlier(t, path); heldBy(t, path, "-x", "setpriv", "--euid=65534") },
		"the user's own file": func(t *testing.T, path string) {
			earlier(t, path)
			if err := errors.Join(os.Chmod(path, 0o600), os.Chown(path, 65534, 65534)); err != nil {
				t.Fatal(err)
			}
			heldBy(t, path, "-x", asNobody...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			prepare(t, path)
			if err := filelock.Check(path, filelock.Exclusive); err != nil {
				t.Errorf("Check: %v", err)
			}
			lock, held := try(t, path, filelock.Exclusive)
			if held != nil {
				t.Fatal(held)
			}
			defer lock.Release()
			out, err := exec.Command(asNobody[0], append(asNobody[1:], "flock", "-n", path, "true")...).CombinedOutput()
			if err == nil || !strings.Contains(string(out), "ermission denied") {
				t.Errorf("the user can lock it: %s %v", out, err)
			}
			if second, held := try(t, path, filelock.Exclusive); second != nil || len(held.Holders) != 1 || held.Holders[0].PID != os.Getpid() {
				t.Errorf("this process is not the only holder: %v", held)
			}
			if files, _ := os.ReadDir(filepath.Dir(path)); len(files) != 1 {
				t.Errorf("left in the directory: %v", files)
			}
		})
	}
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// TestEarlierVersionRuns: it keeps its lock until it ends, is waited for, and is named.
func TestEarlierVersionRuns(t *testing.T) {
	netnstest.Require(t, "flock", "sh")
	path := newPath(t)
	earlier(t, path)
	pid, end := heldBy(t, path, "-x")
	for what, err := range map[string]error{"Check": filelock.Check(path, filelock.Exclusive), "Try": second(filelock.Try(path, filelock.Exclusive))} {
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d (flock)", pid)) {
			t.Errorf("%s: %v, want the process %d", what, err, pid)
		}
	}
	time.AfterFunc(100*time.Millisecond, end)
	ctx, cancel := context.WithTimeout(t.Context(), netnstest.Limit(5*time.Second))
	defer cancel()
	lock, err := filelock.Acquire(ctx, path, filelock.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	lock.Release()
}

func second(_ *filelock.Lock, err error) error { return err }

// TestHolderIsKilled: its lock ends with it, and nobody dead is named.
func TestHolderIsKilled(t *testing.T) {
	netnstest.Require(t, "flock", "sh")
	path := newPath(t)
	lock, _ := try(t, path, filelock.Exclusive)
	lock.Release()
	pid, end := heldBy(t, path, "-x")
	if _, held := try(t, path, filelock.Shared); held == nil || !strings.Contains(held.Error(), fmt.Sprintf("process %d (flock)", pid)) {
		t.Errorf("error %v, want the process %d", held, pid)
	}
	end()
	ctx, cancel := context.WithTimeout(t.Context(), netnstest.Limit(5*time.Second)) // its child has the file open for a moment longer
	defer cancel()
	lock, err := filelock.Acquire(ctx, path, filelock.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	lock.Release()
}

// TestMain is also the program that tries the lock in another PID namespace.
func TestMain(m *testing.M) {
	if path := os.Getenv("FILELOCK_TEST_TRY"); path != "" {
		_, err := filelock.Try(path, filelock.Exclusive)
		fmt.Println(err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestHolderInAnotherNamespace is not named: its number means another process there, or none.
func TestHolderInAnotherNamespace(t *testing.T) {
	netnstest.Require(t, "unshare")
	path := newPath(t)
	lock, _ := try(t, path, filelock.Exclusive)
	defer lock.Release()
	cmd := exec.Command("unshare", "--pid", "--fork", "--mount-proc", os.Args[0])
	cmd.Env = append(os.Environ(), "FILELOCK_TEST_TRY="+path)
	out, err := cmd.CombinedOutput()
	if want := path + " is held by a process that is not visible from here"; err != nil || !strings.HasPrefix(string(out), want) {
		t.Errorf("%s (%v), want %s", out, err, want)
	}
}

// TestAcquireGivesUp at its deadline, and says how long it has waited.
func TestAcquireGivesUp(t *testing.T) {
	path := newPath(t)
	lock, _ := try(t, path, filelock.Exclusive)
	defer lock.Release()
	ctx, cancel := context.WithTimeout(t.Context(), 1100*time.Millisecond)
	defer cancel()
	_, err := filelock.Acquire(ctx, path, filelock.Exclusive)
	var held *filelock.HeldError
	if !errors.As(err, &held) || held.Waited < time.Second || !strings.Contains(err.Error(), "waited for it for 1s") {
		t.Errorf("error %v", err)
	}
}

// TestOneHolder: while all of them take, remove and release the lock, and the file of an earlier version that a user holds
// stands in the way at the start, there are never two exclusive holders.
func TestOneHolder(t *testing.T) {
	netnstest.Require(t, "setpriv", "flock", "sh")
	for range 20 {
		path := newPath(t)
		earlier(t, path)
		_, end := heldBy(t, path, "-x", asNobody...)
		var inside, entered atomic.Int32
		var all sync.WaitGroup
		for n := range 8 {
			all.Go(func() {
				for round := range 20 {
					lock, err := filelock.Acquire(t.Context(), path, filelock.Exclusive)
					if err != nil {
						t.Error(err)
						return
					}
					if others := inside.Add(1); others != 1 {
						t.Errorf("%d holders", others)
					}
					entered.Add(1)
					inside.Add(-1)
					if (n+round)%3 == 0 {
						lock.Remove()
					} else {
						lock.Release()
					}
				}
			})
		}
		all.Wait()
		end()
		if entered.Load() != 160 {
			t.Errorf("%d entered", entered.Load())
		}
	}
}

// TestDirectoryGoes: a lock whose directory is removed at the same time is made again with it.
func TestDirectoryGoes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	stop := make(chan struct{})
	var remover sync.WaitGroup
	remover.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = os.Remove(dir)
			}
		}
	})
	for range 300 {
		lock, err := filelock.Try(filepath.Join(dir, "lock"), filelock.Exclusive)
		if err != nil {
			t.Fatal(err)
		}
		lock.Remove()
	}
	close(stop)
	remover.Wait()
}

func TestCurrent(t *testing.T) {
	path := newPath(t)
	lock, _ := try(t, path, filelock.Shared)
	defer lock.Release()
	if !lock.Current() {
		t.Error("not current at once")
	}
	if err := os.Remove(path); err != nil || lock.Current() {
		t.Errorf("current although its file is gone (%v)", err)
	}
	other, held := try(t, path, filelock.Exclusive)
	if held != nil || lock.Current() {
		t.Errorf("current although another file is there (%v)", held)
	}
	other.Release()
}

// TestRefusals name the place and the reason, and are no reason to wait.
func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		make  func(t *testing.T, path string) error
		words string
	}{
		"others can write the directory": {func(_ *testing.T, path string) error { return os.Chmod(filepath.Dir(path), 0o777) }, "0777 chmod"},
		"a symlink":                      {func(_ *testing.T, path string) error { return os.Symlink("elsewhere", path) }, "lock"},
		"a directory":                    {func(_ *testing.T, path string) error { return os.Mkdir(path, 0o700) }, "directory"},
		"no directory but a file":        {func(_ *testing.T, path string) error { return replaceDir(filepath.Dir(path), os.WriteFile) }, "directory"},
		"no directory but a dead link": {func(_ *testing.T, path string) error {
			return errors.Join(os.Remove(filepath.Dir(path)), os.Symlink("nowhere", filepath.Dir(path)))
		}, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			if err := c.make(t, path); err != nil {
				t.Fatal(err)
			}
			_, err := filelock.Try(path, filelock.Exclusive)
			var held *filelock.HeldError
			if err == nil || errors.As(err, &held) || !strings.Contains(err.Error(), filepath.Dir(path)) {
				t.Fatalf("error %v", err)
			}
			for word := range strings.FieldsSeq(c.words) {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("no %q in %v", word, err)
				}
			}
		})
	}
}

func replaceDir(dir string, write func(string, []byte, os.FileMode) error) error {
	return errors.Join(os.Remove(dir), write(dir, nil, 0o600))
}

func TestCheckMakesNothing(t *testing.T) {
	dir, file := filepath.Join(t.TempDir(), "state"), newPath(t)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "lock"), filepath.Join(file, "lock"), file} {
		if err := filelock.Check(path, filelock.Exclusive); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("made: %v", err)
	}
}
