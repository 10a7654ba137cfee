package netnstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// timeout bounds every command that a test does not bound itself.
const timeout = 60 * time.Second

// Cmd is a command to run in a Space.
type Cmd struct {
	Args  []string // the program is looked up in the PATH of the final environment
	Env   []string // KEY=value, on top of the process's and the Space's
	Stdin string
}

// Result is how a command ended.
type Result struct {
	Stdout, Stderr string
	Code           int // -1: ended by a signal
}

// Exec runs a command and waits for it. A non-zero exit code is a result; an
// error means that the command could not run, or was ended by ctx.
func (s *Space) Exec(ctx context.Context, c Cmd) (Result, error) {
	cmd, err := s.command(ctx, c)
	if err != nil {
		return Result{Code: -1}, err
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err = s.start(cmd); err == nil {
		err = cmd.Wait()
	}
	r := Result{stdout.String(), stderr.String(), -1}
	if cmd.ProcessState != nil {
		r.Code = cmd.ProcessState.ExitCode()
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		err = nil
	}
	return r, err
}

// Run runs a command that has to succeed and returns what it wrote on stdout.
func (s *Space) Run(t TB, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Limit(timeout))
	defer cancel()
	r, err := s.Exec(ctx, Cmd{Args: args})
	if err != nil || r.Code != 0 {
		t.Fatalf("%s: %s: exit %d, %v\n%s%s", s.Name, strings.Join(args, " "), r.Code, err, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

func (s *Space) command(ctx context.Context, c Cmd) (*exec.Cmd, error) {
	env := append(append(append(os.Environ(), "PATH="+systemPATH()), s.Env...), c.Env...)
	program, err := lookPath(c.Args[0], lastValue(env, "PATH"))
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, c.Args[1:]...)
	cmd.Args[0] = c.Args[0]
	cmd.Env = env // exec keeps the last value of a key
	cmd.Stdin = strings.NewReader(c.Stdin)
	// A grandchild that outlives the command may hold its pipes open.
	cmd.WaitDelay = Limit(2 * time.Second)
	// Joining a mount namespace moves the thread to "/".
	cmd.Dir, err = os.Getwd()
	return cmd, err
}

// start starts cmd inside the namespaces: a child inherits those of the thread.
func (s *Space) start(cmd *exec.Cmd) error {
	if s.mounts == nil {
		return s.Do(cmd.Start)
	}
	return onThread(func() error {
		if err := joinMounts(s.mounts); err != nil {
			return err
		}
		if err := s.ns.Set(); err != nil {
			return err
		}
		return cmd.Start()
	})
}

// systemPATH is ours, with the places where a plain user's PATH has no firewall
// tools, and where scripts/setup puts its tools.
func systemPATH() string {
	path := os.Getenv("PATH") + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
	if root, err := RepoRoot(); err == nil {
		path += ":" + filepath.Join(root, "bin", "tools")
	}
	return path
}

// lookPath is exec.LookPath for a PATH that is not this process's.
func lookPath(name, path string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, name)
		if st, err := os.Stat(file); err == nil && !st.IsDir() && st.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}

func lastValue(env []string, key string) (value string) {
	for _, kv := range env {
		if k, v, _ := strings.Cut(kv, "="); k == key {
			value = v
		}
	}
	return value
}
