package netnstest

import (
	"os"
	"os/exec"
	"strings"
	"time"
)

// TB is what this package needs of a test. *testing.T and *testing.B satisfy
// it; a program that is no test brings its own.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Cleanup(func())
	TempDir() string
}

// Require skips the test when it is not run by root or one of the tools is
// missing. In CI (the environment variable CI is set) a skipped test would be
// an unnoticed hole, so there it fails. A tool that is not on the list fails
// everywhere: where it happens to be installed, nobody would notice that
// scripts/setup does not bring it. A tool with a slash in front is a file.
func Require(t TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if len(groupsOf(tool)) == 0 {
			t.Fatalf("%s is not in pkg/netnstest/tools.txt, so scripts/setup does not install it; add it", tool)
		}
	}
	missing := missingTools(append([]string{"ip"}, tools...))
	if os.Geteuid() != 0 {
		missing = append(missing, "root")
	}
	if len(missing) == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("needs %s; scripts/setup installs it", strings.Join(missing, ", "))
	}
	t.Skipf("needs %s", strings.Join(missing, ", "))
}

// tempDir is t.TempDir that goes on SIGINT and SIGTERM too.
func tempDir(t TB) string {
	t.Helper()
	dir := t.TempDir()
	OnExit(t, func() { _ = os.RemoveAll(dir) })
	return dir
}

func missingTools(tools []string) []string {
	var missing []string
	for _, tool := range tools {
		path, err := lookPath(tool, systemPATH())
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil {
			missing = append(missing, tool)
		}
	}
	return missing
}

// Eventually polls until ok answers true and fails the test after the timeout.
func Eventually(t TB, timeout time.Duration, what string, ok func() bool) {
	t.Helper()
	timeout = Limit(timeout)
	for end := time.Now().Add(timeout); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", timeout, what)
			return
		}
	}
}

// must runs a set-up command in the namespace this process was started in. It
// is only used for `ip`, and only with names of our own namespaces.
func must(t TB, stdin, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s\n%s", name, strings.Join(args, " "), err, out, stdin)
	}
}
