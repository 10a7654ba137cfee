package install

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// diffContext is how many lines stand around the difference, as patch expects.
const diffContext = 3

// diff prints a unified diff of one hunk. Our edits are in one place each, so what stands between the first and the last
// difference is the difference.
func diff(to io.Writer, from, into string, before, after []byte) {
	a, b := lines(before), lines(after)
	first := 0
	for first < len(a) && first < len(b) && a[first] == b[first] {
		first++
	}
	endA, endB := len(a), len(b)
	for endA > first && endB > first && a[endA-1] == b[endB-1] {
		endA, endB = endA-1, endB-1
	}
	start, tail := max(0, first-diffContext), min(diffContext, len(a)-endA)
	_, _ = fmt.Fprintf(to, "--- %s\n+++ %s\n@@ -%s +%s @@\n", from, into, span(start, endA+tail), span(start, endB+tail))
	hunk(to, " ", a[start:first])
	hunk(to, "-", a[first:endA])
	hunk(to, "+", b[first:endB])
	hunk(to, " ", a[endA:endA+tail])
}

// span is a range of lines in the header of a hunk. An empty one names the line before it.
func span(start, end int) string {
	if end == start {
		return fmt.Sprintf("%d,0", start)
	}
	return fmt.Sprintf("%d,%d", start+1, end-start)
}

func hunk(to io.Writer, mark string, lines []string) {
	for _, line := range lines {
		_, _ = fmt.Fprint(to, mark, line)
		if !strings.HasSuffix(line, "\n") {
			_, _ = fmt.Fprint(to, "\n\\ No newline at end of file\n")
		}
	}
}

func lines(text []byte) []string {
	var all []string
	for line := range bytes.Lines(text) {
		all = append(all, string(line))
	}
	return all
}
