package netnstest

import (
	_ "embed"
	"strings"
)

// toolList is what scripts/setup installs from.
//
//go:embed tools.txt
var toolList string

// groupsOf returns the groups of scripts/setup that bring a tool, or none when
// it is not on the list.
func groupsOf(tool string) []string {
	for line := range strings.Lines(toolList) {
		fields := strings.Fields(line)
		if len(fields) > 2 && fields[0] == tool {
			return fields[2:]
		}
	}
	return nil
}
