package runtime

import (
	"fmt"
	"regexp"
	"strings"
)

// A page of docs/ is a transcript: its console blocks are run on a node, in their order, and have to print what the page shows.
// What a reader need not see stands in comments, each on a line of its own:
//
//	<!-- node -->             a new node: a network, the programs in /usr/local/bin, nothing installed
//	<!-- run: COMMAND -->     a command that has to succeed
//	<!-- start: COMMAND -->   a daemon, awaited
//	<!-- await: COMMAND -->   a command that succeeds within ten seconds
//	<!-- picture: FILE COMMAND -->    a command on a terminal, whose picture is in docs/FILE
//
// In what is shown, a line "..." stands for any number of lines. A command that fails is followed by its exit status. The other
// blocks, of commands for a cluster, are tried as those of the README are.
type step struct {
	line  int    // where it stands, from 1
	what  string // node, run, start, await, picture; console: a command that is shown; block: commands for elsewhere
	text  string
	shown []string // console: what the page says that it prints
	block block
}

var directive = regexp.MustCompile(`^<!-- (node|run|start|await|picture)(?:: (.*))? -->$`)

// steps reads a page.
func steps(page string) (out []step) {
	lines := strings.Split(page, "\n")
	for i := 0; i < len(lines); i++ {
		if m := directive.FindStringSubmatch(lines[i]); m != nil {
			out = append(out, step{line: i + 1, what: m[1], text: m[2]})
		}
		if isIndented(lines, i) {
			begin := i
			for ; i+1 < len(lines) && (strings.HasPrefix(lines[i+1], "    ") || lines[i+1] == "" && isIndented(lines, i+2)); i++ {
			}
			out = append(out, step{line: begin + 1, what: "block", block: block{lines: lines[begin : i+1]}})
		}
		if !isFence(lines[i]) {
			continue
		}
		language, begin := strings.Trim(strings.TrimSpace(lines[i]), "`"), i+1
		for i++; i < len(lines) && !isFence(lines[i]); i++ {
		}
		if language == "console" {
			out = append(out, transcript(lines[begin:i], begin+1)...)
			continue
		}
		out = append(out, step{line: begin + 1, what: "block", block: block{language: language, lines: lines[begin:i]}})
	}
	return out
}

// isIndented: code without a fence begins after an empty line. In a list, the same is a paragraph of an item.
func isIndented(lines []string, i int) bool {
	if i >= len(lines) || i == 0 || lines[i-1] != "" || !strings.HasPrefix(lines[i], "    ") {
		return false
	}
	for before := i - 1; before >= 0; before-- {
		if lines[before] != "" && !strings.HasPrefix(lines[before], "    ") {
			return !strings.HasPrefix(lines[before], "- ") && !strings.HasPrefix(lines[before], "  ")
		}
	}
	return true
}

// transcript splits a console block into its commands with what they print.
func transcript(lines []string, first int) (out []step) {
	for i, line := range lines {
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			out = append(out, step{line: first + i, what: "console", text: command})
		} else if len(out) > 0 {
			out[len(out)-1].shown = append(out[len(out)-1].shown, line)
		}
	}
	return out
}

// varying is what differs from one run to the next, and what a page has in its place.
var varying = []struct {
	pattern *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`\b20\d\d-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?`), "2026-01-02T15:04:05Z"},
	{regexp.MustCompile(`\bdevel(-[0-9a-f]+(-dirty)?)?\b|\bv\d+\.\d+\.\d+(-[\w.+-]+)?`), "v0.1.0"},
	{regexp.MustCompile(`nf_conntrack_max = \d+`), "nf_conntrack_max = 262144"},
	{regexp.MustCompile(`nf_conntrack_count = \d+`), "nf_conntrack_count = 31"},
	{regexp.MustCompile(`\b(pid|process)(["=: ]+)\d+`), "${1}${2}4711"},
	{regexp.MustCompile(`packets \d+ bytes \d+`), "packets 12 bytes 720"},
	{regexp.MustCompile(`\b\d+ packets, \d+ bytes`), "12 packets, 720 bytes"},
	{regexp.MustCompile(`\d\d:\d\d:\d\d UTC \([^)]*?\s+ago\)`), "15:04:05 UTC (3s ago)"},
	{regexp.MustCompile(`\d\d:\d\d:\d\d  `), "15:04:05  "},
	{regexp.MustCompile(`\b\d+ of \d+ connections are tracked`), "31 of 262144 connections are tracked"},
	{regexp.MustCompile(`\b\d+(\.\d+)?(ms|µs|s|m|h)(\d+s)? (ago|old)`), "3s $4"},
	{regexp.MustCompile(`\bcnitool-[0-9a-f]+`), "cnitool-1f2e3d4c5b6a"},
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), strings.Repeat("0123456789abcdef", 4)},
}

// steady is text without what varies.
func steady(text string) string {
	for _, v := range varying {
		text = v.pattern.ReplaceAllString(text, v.instead)
	}
	return text
}

// printed is what a page would show of a command: its output, and how it ended if not well.
func printed(output string, status int) []string {
	output = strings.TrimRight(steady(output), "\n")
	var lines []string
	if output != "" {
		lines = strings.Split(output, "\n")
	}
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	if status != 0 {
		lines = append(lines, fmt.Sprintf("(exit status %d)", status))
	}
	return lines
}

// matches compares what was printed with what is shown, in which "..." stands for any number of lines.
func matches(shown, got []string) bool {
	if len(shown) == 0 {
		return len(got) == 0
	}
	if strings.TrimSpace(shown[0]) == "..." {
		for i := 0; i <= len(got); i++ {
			if matches(shown[1:], got[i:]) {
				return true
			}
		}
		return false
	}
	return len(got) > 0 && shown[0] == got[0] && matches(shown[1:], got[1:])
}

// rewrite puts what commands print into a page. What has "..." is a choice of its author, and stays.
func rewrite(page string, prints map[int][]string) string {
	lines := strings.Split(page, "\n")
	var out []string
	for _, s := range steps(page) {
		got, ok := prints[s.line]
		if !ok || strings.Contains("\n"+strings.Join(s.shown, "\n")+"\n", "\n...\n") {
			continue
		}
		lines[s.line-1] += "\x00" + strings.Join(got, "\x00")
		if len(got) == 0 {
			lines[s.line-1] = "$ " + s.text
		}
		for i := range s.shown {
			lines[s.line+i] = "\x01"
		}
	}
	for _, line := range lines {
		if line != "\x01" {
			out = append(out, strings.Split(line, "\x00")...)
		}
	}
	return strings.Join(out, "\n")
}
