package release

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	versionLine = regexp.MustCompile(`^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d{2}-\d{2})$`)
	kinds       = []string{"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
)

// TestChangelog holds CHANGELOG.md against the form of keepachangelog.com 1.1.0: what is not released first, then the versions,
// the newest first, each with its date, the known kinds of changes, and a link.
func TestChangelog(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(root, "CHANGELOG.md"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	if !strings.HasPrefix(text, "# Changelog\n") || !strings.Contains(text, "https://keepachangelog.com/en/1.1.0/") {
		t.Error("want the title, and the name of the form")
	}
	versions, last := []string{}, "9999-99-99"
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		m := versionLine.FindStringSubmatch(line)
		switch {
		case m != nil:
			if _, err := time.Parse(time.DateOnly, m[2]); err != nil || m[2] > last {
				t.Errorf("%s: want a date, the newest version first: %v", line, err)
			}
			versions, last = append(versions, m[1]), m[2]
		case line == "## [Unreleased]":
			if len(versions) != 0 {
				t.Errorf("%s: want it first", line)
			}
			versions = append(versions, "Unreleased")
		case strings.HasPrefix(line, "## "):
			t.Errorf("%s: want ## [VERSION] - DATE", line)
		case strings.HasPrefix(line, "### ") && !slices.Contains(kinds, line[4:]):
			t.Errorf("%s: want one of %v", line, kinds)
		}
	}
	if len(versions) == 0 || versions[0] != "Unreleased" || versions[len(versions)-1] != "0.1.0" {
		t.Errorf("versions %v: want Unreleased first and 0.1.0 last", versions)
	}
	for _, v := range versions {
		if !strings.Contains(text, "\n["+v+"]: https://github.com/ip-masq/ip-masq-cni/") {
			t.Errorf("no link for [%s]", v)
		}
	}
}

// TestNotes: the text of a release is its entry and no other's, and a release without an entry is refused.
func TestNotes(t *testing.T) {
	c := newCheckout(t, t.TempDir())
	c.write("CHANGELOG.md", "# Changelog\n\n## [Unreleased]\n\n- new\n\n## [0.2.0] - 2026-02-02\n\n- second\n\n## [0.1.0] - 2026-01-01\n\n- first\n\n[Unreleased]: x\n[0.2.0]: x\n")
	for version, want := range map[string]string{"v0.1.0": "- first\n", "v0.2.0": "- second\n", "v0.3.0-rc.1": "- new\n", "v0.2.0-5-gabcdef012345": "- new\n"} {
		if got := c.run("env", "VERSION="+version, "go", "run", "./scripts/release", "-notes"); got != want {
			t.Errorf("%s: %q, want %q", version, got, want)
		}
	}
	got, err := c.try("env", "VERSION=v0.3.0", "make", "release")
	if err == nil || !strings.Contains(got, `CHANGELOG.md has no entry "## [0.3.0]"`) {
		t.Errorf("a release without an entry: %v\n%s", err, got)
	}
	if _, err := os.Stat(filepath.Join(c.dir, "bin")); !os.IsNotExist(err) {
		t.Errorf("it wrote something: %v", err)
	}
}
