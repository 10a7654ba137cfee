package runtime

import (
	"fmt"
	"html"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestPicture: colors, weight, markup and long lines.
func TestPicture(t *testing.T) {
	t.Parallel()
	got := picture("a <b", "\x1b[32mok\x1b[0m & \x1b[1mbold\x1b[0m\r\n"+strings.Repeat("é", columns)+"xyz\r\n")
	for _, want := range []string{
		">a &lt;b</tspan>", `<tspan fill="#7ee787">ok</tspan> &amp; <tspan font-weight="bold">bold</tspan></text>`,
		strings.Repeat("é", columns) + "</text>", `y="78">xyz</text>`, `width="956"`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
}

// A picture of a terminal is an SVG of what a command printed there, so that it is text in every browser, and a difference that can
// be read in a commit.
const (
	cellWidth, lineHeight = 8.4, 18
	marginLeft, marginTop = 16, 24
	columns               = 110
)

// colors are those of ANSI's sequences that the programs use, on a dark ground.
var colors = map[string]string{"31": "#ff7b72", "32": "#7ee787", "33": "#e3b341", "34": "#79c0ff", "35": "#d2a8ff", "36": "#76e3ea", "90": "#8b949e", "2": "#8b949e"}

var escape = regexp.MustCompile("\x1b\\[([0-9;]*)m")

// picture draws a prompt with the command, and below it what was printed.
func picture(command, printed string) string {
	lines := []string{"\x1b[90m$\x1b[0m \x1b[1m" + command + "\x1b[0m"}
	for _, line := range strings.Split(strings.TrimRight(printed, "\r\n"), "\n") {
		lines = append(lines, wrap(strings.TrimRight(line, "\r "))...)
	}
	width := 0
	var text strings.Builder
	for i, line := range lines {
		width = max(width, len([]rune(escape.ReplaceAllString(line, ""))))
		fmt.Fprintf(&text, "<text x=\"%d\" y=\"%d\">%s</text>\n", marginLeft, marginTop+i*lineHeight, spans(line))
	}
	w, h := int(float64(width)*cellWidth)+2*marginLeft, marginTop+len(lines)*lineHeight
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d">
<style>text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #e6edf3; white-space: pre }</style>
<rect width="100%%" height="100%%" rx="8" fill="#0d1117"/>
%s</svg>
`, w, h, w, h, text.String())
}

// wrap breaks a line where the terminal does.
func wrap(line string) (out []string) {
	for {
		column, end := 0, 0
		for end < len(line) && column < columns {
			if at := escape.FindStringIndex(line[end:]); at != nil && at[0] == 0 {
				end += at[1]
				continue
			}
			_, size := utf8.DecodeRuneInString(line[end:])
			end, column = end+size, column+1
		}
		out = append(out, line[:end])
		if line = line[end:]; line == "" {
			return out
		}
	}
}

// spans gives the parts of a line their color and weight.
func spans(line string) string {
	var out strings.Builder
	color, bold := "", false
	part := func(s string) {
		attributes := ""
		if color != "" {
			attributes += ` fill="` + color + `"`
		}
		if bold {
			attributes += ` font-weight="bold"`
		}
		switch {
		case s == "":
		case attributes == "":
			out.WriteString(html.EscapeString(s))
		default:
			out.WriteString("<tspan" + attributes + ">" + html.EscapeString(s) + "</tspan>")
		}
	}
	for {
		at := escape.FindStringSubmatchIndex(line)
		if at == nil {
			part(line)
			return out.String()
		}
		part(line[:at[0]])
		for _, code := range strings.Split(line[at[2]:at[3]], ";") {
			switch {
			case code == "" || code == "0":
				color, bold = "", false
			case code == "1":
				bold = true
			case colors[code] != "":
				color = colors[code]
			}
		}
		line = line[at[1]:]
	}
}
