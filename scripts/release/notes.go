package main

import (
	"fmt"
	"regexp"
	"strings"
)

// released is a version that is one, not a commit between two.
var released = regexp.MustCompile(`^v(\d+\.\d+\.\d+)$`)

// notes are what the changelog says about a version. A release without an entry there is an error; what is not released yet,
// release candidates too, is what changed since the last.
func notes(version, changelog string) (string, error) {
	name := "Unreleased"
	if m := released.FindStringSubmatch(version); m != nil {
		name = m[1]
	}
	_, text, found := strings.Cut(changelog, "\n## ["+name+"]")
	if !found {
		return "", fmt.Errorf("CHANGELOG.md has no entry %q for %s: add one", "## ["+name+"]", version)
	}
	_, text, _ = strings.Cut(text, "\n")               // the date
	text, _, _ = strings.Cut(text, "\n## [")           // the next version
	text, _, _ = strings.Cut(text, "\n[Unreleased]: ") // the links
	return strings.TrimSpace(text) + "\n", nil
}
