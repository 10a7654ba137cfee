package release

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// root is the project's, as seen from here.
const root = "../../.."

// checkout is a copy of the source, without the git of the machine's own.
type checkout struct {
	*testing.T
	dir string
}

func newCheckout(t *testing.T, dir string) checkout {
	t.Helper()
	for _, name := range []string{
		"cmd", "pkg", "plugin", "scripts", "conf", "docs", "tools/man", "go.mod", "go.sum", "Makefile", "LICENSE", "README.md", "CHANGELOG.md", "SECURITY.md", ".gitignore",
	} {
		from, to := filepath.Join(root, name), filepath.Join(dir, name)
		info, err := os.Stat(from)
		if err == nil && info.IsDir() {
			err = os.CopyFS(to, os.DirFS(from))
		} else if err == nil {
			var data []byte
			if data, err = os.ReadFile(from); err == nil {
				err = os.WriteFile(to, data, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return checkout{t, dir}
}

// commit makes the checkout's own repository, where there is none, and a commit that depends on nothing of this machine.
func (c checkout) commit(tag string) {
	c.Helper()
	if _, err := os.Stat(filepath.Join(c.dir, ".git")); err != nil {
		c.run("git", "init", "--quiet")
	}
	c.run("git", "add", "--all")
	c.run("git", "commit", "--quiet", "--allow-empty", "--message=test")
	if tag != "" {
		c.run("git", "tag", "--annotate", "--message="+tag, tag)
	}
}

// run runs a command that has to succeed and returns what it wrote on stdout.
func (c checkout) run(args ...string) string {
	c.Helper()
	out, err := c.try(args...)
	if err != nil {
		c.Fatalf("%v: %v\n%s", args, err, out)
	}
	return out
}

func (c checkout) try(args ...string) (string, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(),
		"VERSION=", "REVISION=", "SOURCE_DATE_EPOCH=", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=test", "GIT_AUTHOR_EMAIL=test@example.com", "GIT_AUTHOR_DATE=2026-01-02T03:04:05Z",
		"GIT_COMMITTER_NAME=test", "GIT_COMMITTER_EMAIL=test@example.com", "GIT_COMMITTER_DATE=2026-01-02T03:04:05Z")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out) + stderr.String(), err
	}
	return string(out), nil
}

func (c checkout) write(name, text string) {
	c.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o600); err != nil {
		c.Fatal(err)
	}
}
