package runtime

import (
	"regexp"
	"strings"
	"testing"
)

// block is a piece of code in a chapter: commands, or data that is shown.
type block struct {
	language string // of a fence; empty where there is none
	lines    []string
}

// chapter returns a README's text below a heading, up to the next of its level. A # inside a fence is no heading.
func chapter(readme, heading string) []string {
	var out []string
	inside, fenced := false, false
	for _, line := range strings.Split(readme, "\n") {
		if isFence(line) {
			fenced = !fenced
		}
		if !fenced && strings.HasPrefix(line, "## ") {
			inside = strings.TrimSpace(line) == heading
			continue
		}
		if inside {
			out = append(out, line)
		}
	}
	return out
}

func isFence(line string) bool { return strings.HasPrefix(strings.TrimSpace(line), "```") }

// blocks finds fenced and indented code. Indented code stands after an empty line; what follows text is a paragraph.
func blocks(lines []string) (out []block) {
	var current *block
	fenced, previous := false, ""
	for _, line := range lines {
		indented := strings.HasPrefix(line, "    ") || strings.HasPrefix(line, "\t")
		switch {
		case isFence(line) && !fenced:
			out = append(out, block{language: strings.Trim(strings.TrimSpace(line), "`")})
			current, fenced = &out[len(out)-1], true
		case isFence(line):
			current, fenced = nil, false
		case fenced, current != nil && indented:
			current.lines = append(current.lines, line)
		case indented && strings.TrimSpace(previous) == "":
			out = append(out, block{lines: []string{line}})
			current = &out[len(out)-1]
		default:
			current = nil
		}
		previous = line
	}
	return out
}

// looksLikeData: JSON, or YAML with a key and a colon.
var looksLikeData = regexp.MustCompile(`^\s*([{\[]|[A-Za-z]\w*:(\s|$))`)

// isData tells whether a block shows something instead of telling the reader what to type.
func (b block) isData() bool {
	switch b.language {
	case "json", "yaml", "text":
		return true
	case "sh", "bash", "shell", "console":
		return false
	}
	return len(b.lines) > 0 && looksLikeData.MatchString(b.lines[0])
}

// commands are a block's, one by one: without comments and prompts, continued lines joined. Where there are prompts, lines
// without one are what was printed.
func (b block) commands() (out []string) {
	text := strings.ReplaceAll(strings.Join(b.lines, "\n"), "\\\n", " ")
	prompts := strings.Contains("\n"+text, "\n$ ") || strings.Contains(text, "    $ ")
	for _, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(trailingComment.ReplaceAllString(line, ""))
		command, prompted := strings.CutPrefix(line, "$ ")
		command = strings.TrimPrefix(command, "sudo ")
		if command != "" && (prompted || !prompts) {
			out = append(out, strings.Join(strings.Fields(command), " "))
		}
	}
	return out
}

var trailingComment = regexp.MustCompile(`(^|\s)#.*$`)

// TestChapter: a README that is laid out in another way still tells its commands.
func TestChapter(t *testing.T) {
	readme := "## Before\n\n    no\n\n## Install\n\n```sh\n# first\na  --flag   # why\nsudo b \\\n  -c\n```\ntext\n    no\n\n    $ d\n    printed\n\n" +
		"    { \"type\": \"x\" }\n\n### Deeper\n\n```\ne\n## no heading\n```\n\n```yaml\nkey: value\n```\n## After\n\n    no\n"
	var commands []string
	data := 0
	for _, b := range blocks(chapter(readme, "## Install")) {
		if b.isData() {
			data++
			continue
		}
		commands = append(commands, b.commands()...)
	}
	if got := strings.Join(commands, "|"); got != "a --flag|b -c|d|e" || data != 2 {
		t.Errorf("commands %q, %d blocks of data", got, data)
	}
}
