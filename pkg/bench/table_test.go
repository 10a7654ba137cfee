package bench

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// table is a table of a report, in markdown that is readable as it is: the columns are padded.
type table struct {
	head []string
	rows [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) String() string {
	widths := make([]int, len(t.head))
	rule := make([]string, len(t.head))
	for _, row := range append([][]string{t.head}, t.rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell), 3)
		}
	}
	for i, width := range widths {
		rule[i] = strings.Repeat("-", width)
	}
	var b strings.Builder
	for _, row := range append([][]string{t.head, rule}, t.rows...) {
		for i, width := range widths {
			cell := ""
			if i < len(row) {
				cell = row[i]
			}
			b.WriteString("| " + cell + strings.Repeat(" ", width-utf8.RuneCountInString(cell)+1))
		}
		b.WriteString("|\n")
	}
	return b.String()
}

// number has three significant digits, and no exponent.
func number(v float64) string {
	switch abs := max(v, -v); {
	case abs == 0:
		return "0"
	case abs < 0.1:
		return fmt.Sprintf("%.3f", v)
	case abs < 10:
		return fmt.Sprintf("%.2f", v)
	case abs < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// short is a number of prefixes or pods: 10k.
func short(n int) string {
	if n >= 1000 && n%1000 == 0 {
		return fmt.Sprintf("%dk", n/1000)
	}
	return fmt.Sprint(n)
}

// report collects what one comparison prints, and its goals.
type report struct {
	text  strings.Builder
	goals table
}

func newReport(title string) *report {
	r := &report{goals: table{head: []string{"goal", "at most", "measured", ""}}}
	r.printf("## %s\n", title)
	return r
}

func (r *report) printf(format string, args ...any) { fmt.Fprintf(&r.text, format, args...) }

func (r *report) section(title string, t *table) { r.printf("\n### %s\n\n%s", title, t) }

// goal prints a limit beside the measure. Nothing fails by it: a busy machine is no error.
func (r *report) goal(what string, limit, measured float64) {
	verdict := "met"
	if measured > limit {
		verdict = "MISSED"
	}
	r.goals.add(what, number(limit), number(measured), verdict)
}

// done saves the report.
func (r *report) done(t *testing.T, name string) {
	t.Helper()
	if len(r.goals.rows) > 0 {
		r.section("Goals", &r.goals)
	}
	save(t, name, r.text.String())
}

func TestTable(t *testing.T) {
	tab := table{head: []string{"way", "×"}}
	tab.add("ours", number(1.234))
	tab.add("a µ")
	want := "| way  | ×    |\n| ---- | ---- |\n| ours | 1.23 |\n| a µ  |      |\n"
	if got := tab.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestNumbers(t *testing.T) {
	for value, want := range map[float64]string{0: "0", 0.0123: "0.012", 0.5: "0.50", -2: "-2.00", 12.34: "12.3", 1234.5: "1234"} {
		if got := number(value); got != want {
			t.Errorf("number(%v) = %s, want %s", value, got, want)
		}
	}
	if got := short(10000) + short(64) + short(1100); got != "10k641100" {
		t.Error(got)
	}
}
