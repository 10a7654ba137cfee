package install

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec" //nolint:depguard // a plugin is proved by running it: bounded in time, its verb the only environment, no shell
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/atomicfile"
)

// versionTime bounds the plugin's answer to VERSION.
const versionTime = 10 * time.Second

const binaryMode = 0o755

func (o Options) source() string { return filepath.Join(o.SourceDir, pluginType) }
func (o Options) target() string { return filepath.Join(o.BinDir, pluginType) }

// upToDate says whether the plugin that is there is the one to install.
func (o Options) upToDate() (bool, error) {
	source, err := os.ReadFile(o.source())
	if err != nil {
		return false, fmt.Errorf("the plugin to install (--source-dir): %w", err)
	}
	info, err := os.Lstat(o.target())
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(o.BinDir); errors.Is(err, fs.ErrNotExist) {
			return false, notNow("there is no directory %s (--cni-bin-dir); the runtime looks for plugins in one that exists", o.BinDir)
		}
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("the installed plugin: %w", err)
	}
	if info.IsDir() {
		return false, fmt.Errorf("%s is a directory, where the plugin belongs", o.target())
	}
	if !info.Mode().IsRegular() || info.Mode().Perm() != binaryMode || info.Size() != int64(len(source)) {
		return false, nil
	}
	installed, err := os.ReadFile(o.target())
	if err != nil {
		return false, fmt.Errorf("the installed plugin: %w", err)
	}
	return bytes.Equal(source, installed), nil
}

// binary is the plugin staged, or nothing where the one that is there is the same; and in both cases its versions.
func (o Options) binary(ctx context.Context) (*atomicfile.Staged, []string, error) {
	same, err := o.upToDate()
	if err != nil {
		return nil, nil, err
	}
	if same {
		versions, err := supportedVersions(ctx, o.target())
		if err != nil {
			err = fmt.Errorf("%s: %w", o.target(), err)
		}
		return nil, versions, err
	}
	return o.stageBinary(ctx)
}

// stageBinary copies the plugin beside its place and runs it there, so that what answered is what will be named.
func (o Options) stageBinary(ctx context.Context) (*atomicfile.Staged, []string, error) {
	source, err := os.ReadFile(o.source())
	if err != nil {
		return nil, nil, fmt.Errorf("the plugin to install (--source-dir): %w", err)
	}
	s, err := atomicfile.Stage(o.target(), source, func(f *os.File) error { return f.Chmod(binaryMode) })
	if err != nil {
		return nil, nil, err
	}
	versions, err := supportedVersions(ctx, s.Temp)
	if err != nil {
		err = fmt.Errorf("%s is not a plugin that works here, so the present one stays: %w", o.source(), err)
	}
	if copied, readErr := os.ReadFile(s.Temp); err == nil && (readErr != nil || !bytes.Equal(source, copied)) {
		err = fmt.Errorf("write %s: %w", o.target(), errors.Join(errors.New("the copy differs from its source"), readErr))
	}
	if err != nil {
		s.Discard()
		return nil, nil, err
	}
	return s, versions, nil
}

// supportedVersions runs VERSION, the one verb that needs nothing but its name.
func supportedVersions(ctx context.Context, plugin string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, versionTime)
	defer cancel()
	stdout, err := runPlugin(ctx, `{"cniVersion":"1.1.0"}`, "CNI_COMMAND=VERSION", plugin)
	if err != nil {
		return nil, fmt.Errorf("VERSION: %w", err)
	}
	return decodeVersions(stdout)
}

// runPlugin starts a plugin with one variable, until ctx ends.
func runPlugin(ctx context.Context, stdin, variable, plugin string, args ...string) ([]byte, error) {
	var stdout, stderr answer
	cmd := exec.CommandContext(ctx, plugin, args...)
	cmd.Env = []string{variable, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// What the plugin started ends with it, and cannot hold its output open.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	began := time.Now()
	if err := cmd.Run(); err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("no answer within %s", time.Since(began).Round(time.Second))
		}
		return nil, fmt.Errorf("%w %s", err, firstLine(stderr))
	}
	return stdout, nil
}

// answer is what a plugin printed. One that prints without end is cut off.
type answer []byte

func (a *answer) Write(text []byte) (int, error) {
	if len(*a)+len(text) > 1<<20 {
		return 0, errors.New("it prints without end")
	}
	*a = append(*a, text...)
	return len(text), nil
}

func decodeVersions(answer []byte) ([]string, error) {
	var decoded struct {
		Supported []string `json:"supportedVersions"`
	}
	if err := json.Unmarshal(answer, &decoded); err != nil {
		return nil, fmt.Errorf("VERSION: the answer %q cannot be decoded: %w", firstLine(answer), err)
	}
	if len(decoded.Supported) == 0 {
		return nil, fmt.Errorf("VERSION: the answer %q has no supportedVersions", firstLine(answer))
	}
	return decoded.Supported, nil
}

func firstLine(text []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return line[:min(len(line), 200)]
}
