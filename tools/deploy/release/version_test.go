package release

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestVersion is what scripts/version prints of a source, from without git to a release candidate.
func TestVersion(t *testing.T) {
	c := newCheckout(t, t.TempDir())
	steps := []struct {
		name string
		do   func()
		want string
	}{
		{"no git", func() {}, `devel`},
		{"before the first tag", func() { c.commit("") }, `devel-[0-9a-f]{12}`},
		{"a tag that is no version", func() { c.commit("nightly") }, `devel-[0-9a-f]{12}`},
		{"a tag", func() { c.commit("v1.2.3") }, `v1\.2\.3`},
		{"a file that differs", func() { c.write("README.md", "changed\n") }, `v1\.2\.3-dirty`},
		{"a commit later", func() { c.commit("") }, `v1\.2\.3-1-g[0-9a-f]{12}`},
		{"a release candidate", func() { c.commit("v1.3.0-rc.1") }, `v1\.3\.0-rc\.1`},
	}
	for _, s := range steps {
		s.do()
		if got := strings.TrimSpace(c.run("scripts/version")); !regexp.MustCompile("^" + s.want + "$").MatchString(got) {
			t.Errorf("%s: %q, want %s", s.name, got, s.want)
		}
	}
	if got := c.run("env", "VERSION=v9.9.9", "scripts/version"); got != "v9.9.9\n" {
		t.Errorf("VERSION=v9.9.9: %q", got)
	}
	if got, err := c.try("env", "VERSION=v1 -X main.x=y", "scripts/version"); err == nil || !strings.Contains(got, "want letters, digits") {
		t.Errorf("a VERSION that the linker would read as more flags: %v, %q", err, got)
	}
}

// TestVersionOfASourceInsideAnotherRepository: the tags of a repository around the source are not its own.
func TestVersionOfASourceInsideAnotherRepository(t *testing.T) {
	outer := checkout{t, t.TempDir()}
	outer.commit("v7.7.7")
	inner := newCheckout(t, mkdir(t, outer.dir, "vendored", "ip-masq"))
	if got := inner.run("scripts/version"); got != "devel\n" {
		t.Errorf("%q", got)
	}
}

func mkdir(t *testing.T, parts ...string) string {
	t.Helper()
	dir := filepath.Join(parts...)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestBuild: all three programs print the version, and one commit gives one set of bytes, wherever it is checked out and
// whatever the user set for other builds.
func TestBuild(t *testing.T) {
	dirs := []string{t.TempDir(), filepath.Join(t.TempDir(), "elsewhere")}
	var programs [2]map[string]string
	for i, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		c := newCheckout(t, dir)
		c.commit("v1.2.3")
		c.run("env", []string{"GOAMD64=", "GOAMD64=v3"}[i], "make", "build")
		programs[i] = readAll(t, filepath.Join(dir, "bin"))
	}
	if diff := cmp.Diff(programs[0], programs[1]); diff != "" {
		t.Error("two builds of one commit differ")
	}
	c := checkout{t, dirs[0]}
	for _, line := range []string{
		"bin/ip-masq-agent --version: ip-masq-agent v1.2.3", "bin/ip-masq-installer --version: ip-masq-installer v1.2.3",
		"bin/ip-masq --version: ip-masq v1.2.3",
	} {
		command, want, _ := strings.Cut(line, ": ")
		if got := c.run("sh", "-c", command+" 2>&1"); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
}

// readAll returns the files of a directory, by name.
func readAll(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(data)
	}
	return files
}
