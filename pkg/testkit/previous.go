package testkit

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// previousRelease is the tree of 0.1.0, which upgrades and roll-backs are tested with. Unlike a commit's, a tree's name depends on
// its content alone.
const previousRelease = "04359e62c6019f35b81849b2b01e4559535c41f0"

const previousDir = "previous"

// Previous is a step of Main that builds the programs of the previous release out of the repository's history. A copy of the
// repository without history has none: PreviousProgram then says so.
func Previous(dir string) error {
	root, err := netnstest.RepoRoot()
	if err != nil {
		return err
	}
	if exec.Command("git", "-C", root, "cat-file", "-e", previousRelease).Run() != nil {
		return nil
	}
	source, err := os.MkdirTemp("", "ip-masq-previous-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(source) }()
	archive := filepath.Join(source, "archive.tar")
	for _, command := range [][]string{
		{"git", "-C", root, "archive", "--output", archive, previousRelease, "go.mod", "go.sum", "cmd", "pkg", "plugin"},
		{"tar", "-xf", archive, "-C", source},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w\n%s", command, err, out)
		}
	}
	return GoBuild(source, filepath.Join(dir, previousDir)+"/", "", "./plugin/ip-masq", "./cmd/ip-masq-agent")
}

// PreviousProgram is the path of a program of the previous release.
func PreviousProgram(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(Built(), previousDir, name)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		text := "the previous release (the tree " + previousRelease + ") is not in this copy's history; fetch it: git fetch --unshallow"
		if os.Getenv("CI") != "" {
			t.Fatal(text)
		}
		t.Skip(text)
	}
	return path
}
