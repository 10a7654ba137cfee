package netnstest

import (
	"context"
	"os"
	"path/filepath"
	"strings"
)

// CountExec runs the command under strace and returns how many programs it
// started, itself not counted. The Result is the command's own.
func CountExec(t TB, s *Space, c Cmd) (int, Result) {
	t.Helper()
	trace := filepath.Join(tempDir(t), "trace")
	tracer := []string{"strace", "-f", "-qq", "-e", "trace=execve,execveat", "-e", "signal=none", "-o", trace, "--"}
	c.Args = append(tracer, c.Args...)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	r, err := s.Exec(ctx, c)
	if err != nil {
		t.Fatalf("%s: %v", strings.Join(c.Args, " "), err)
	}
	data, err := os.ReadFile(trace)
	if err != nil {
		t.Fatalf("%v\n%s", err, r.Stderr)
	}
	n := executed(string(data))
	if n == 0 {
		t.Fatalf("strace saw nothing: %s", r.Stderr)
	}
	return n - 1, r
}

// executed counts the successful calls. A call that strace saw interrupted ends
// in a line of its own ("<... execve resumed>) = 0"), which counts instead of
// its first half.
func executed(trace string) int {
	n := 0
	for line := range strings.Lines(trace) {
		if strings.Contains(line, "execve") && strings.HasSuffix(strings.TrimRight(line, "\n"), "= 0") {
			n++
		}
	}
	return n
}
