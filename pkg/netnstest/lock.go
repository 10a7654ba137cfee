package netnstest

import (
	"os"
	"path/filepath"
	"syscall"
)

// HoldLock keeps a lock file locked until release or the end of the test, as another process would: flock(2) is per open file. The file
// and its directory are made where they are missing.
func HoldLock(t TB, path string) (release func()) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatalf("hold the lock: %v", err)
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		t.Fatalf("hold the lock: %v", err)
	}
	release = func() { _ = file.Close() }
	OnExit(t, release)
	return release
}
