package status

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Width is how wide text is at most.
const Width = 100

// Style is how text looks on the screen that it is for.
type Style struct {
	Colors bool
	Now    time.Time // what ages are counted from
}

const (
	red    = "31"
	green  = "32"
	yellow = "33"
	bold   = "1"
)

func (s Style) paint(color, text string) string {
	if !s.Colors || color == "" {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

// indent is the width of the first column, which has a word for each group of lines.
const indent = 12

// page writes lines in two columns.
type page struct {
	Style
	to io.Writer
}

// row writes one line, or several where the text is too long: they break at spaces, and an unbroken word is cut.
func (p page) row(label, color, format string, args ...any) {
	text := format
	if len(args) > 0 {
		text = fmt.Sprintf(format, args...)
	}
	head := p.paint(bold, fmt.Sprintf("%-*s", indent, label))
	for paragraph := range strings.SplitSeq(text, "\n") {
		for _, line := range wrap(paragraph, Width-indent) {
			_, _ = fmt.Fprintln(p.to, strings.TrimRight(head+p.paint(color, line), " "))
			head = strings.Repeat(" ", indent)
		}
	}
}

// wrap breaks a line into lines of at most width columns; those that follow are indented by two.
func wrap(text string, width int) []string {
	var lines []string
	runes, lead := []rune(text), ""
	for len(runes) > width-len(lead) {
		room := width - len(lead)
		at := room
		for i := room; i > room/2; i-- {
			if runes[i] == ' ' {
				at = i
				break
			}
		}
		lines = append(lines, lead+strings.TrimRight(string(runes[:at]), " "))
		runes, lead = []rune(strings.TrimLeft(string(runes[at:]), " ")), "  "
	}
	return append(lines, lead+string(runes))
}

// listed bounds how many lines a group has: --output json has them all.
const listed = 20

// each writes one row for each of n things.
func (p page) each(n int, row func(i int)) {
	for i := range n {
		if i == listed {
			p.row("", "", "and %d more; --output json lists them all", n-listed)
			return
		}
		row(i)
	}
}

// Print writes the status for people.
func (s Status) Print(to io.Writer, style Style) {
	p := page{style, to}
	s.printDaemon(p)
	s.printBackend(p)
	s.printPolicy(p)
	s.printEgress(p)
	s.printDrift(p)
	s.printPlugin(p)
	s.printPods(p)
	s.printConflicts(p)
	s.printRepairs(p)
	s.printPorts(p)
	for _, u := range s.Unknown {
		p.row("unknown", yellow, "%s: %s", u.Part, u.Error)
	}
}

func (s Status) printDaemon(p page) {
	d := s.Daemon
	switch {
	case !d.Running:
		p.row("daemon", red, "none runs; what follows is read from node and kernel")
		return
	case !d.Responding:
		p.row("daemon", red, "it holds its lock and does not answer%s; what follows is read from node and kernel", ofPID(d.PID))
		return
	}
	pid := "unknown"
	if d.PID != nil {
		pid = fmt.Sprint(*d.PID)
	}
	p.row("daemon", "", "running since %s, process %s, version %s", p.when(d.Since), pid, text(d.Version))
	switch {
	case d.LastSync == nil:
		p.row("", yellow, "no sync yet")
	case d.LastSync.Result != ResultOK:
		p.row("", red, "last sync %s failed: %s", p.when(&d.LastSync.Time), text(d.LastSync.Error))
	default:
		p.row("", "", "last sync %s: ok", p.when(&d.LastSync.Time))
	}
	if d.Current != nil && !*d.Current {
		p.row("", red, "that is longer ago than the interval between two syncs")
	}
}

// when is a time of day, and how long ago that was.
func (p page) when(t *time.Time) string {
	if t == nil {
		return "an unknown time"
	}
	age := p.Now.Sub(*t)
	layout := "15:04:05"
	if age > 20*time.Hour {
		layout = "2006-01-02 15:04:05"
	}
	return fmt.Sprintf("%s UTC (%s ago)", t.UTC().Format(layout), Age(age))
}

// Age is a duration in its two largest units.
func Age(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}

func (s Status) printBackend(p page) {
	b := s.Backend
	if b.Kind == nil {
		p.row("backend", yellow, "none chosen since this node booted")
	} else {
		p.row("backend", "", "%s (%s)", *b.Kind, text(b.Reason))
	}
	if b.Error != nil {
		p.row("", red, "a pod could not be attached now: %s", *b.Error)
	}
}

func (s Status) printPolicy(p page) {
	since := ""
	if s.Policy.Since != nil {
		since = ", in force since " + p.when(s.Policy.Since)
	}
	p.row("policy", "", "%s%s", s.Policy.Reason, since)
	if !s.Config.Valid {
		p.row("", red, "%s", text(s.Config.Error))
	}
	p.each(len(s.Policy.Prefixes), func(i int) {
		prefix := s.Policy.Prefixes[i]
		name := prefix.Prefix.String()
		if prefix.Prefix.Bits() == 0 {
			name = "every other " + prefix.Family.String()
		}
		if prefix.Group != nil {
			name += fmt.Sprintf(" (group %d)", *prefix.Group)
		}
		p.row("", "", "%-10s  %-20s%s%s", prefix.Verdict, name, prefix.counted(), s.from(prefix.File, prefix.Line))
	})
	s.printTotals(p)
	s.printSettings(p)
}

// from names file and line where there is more than one file that they could be of.
func (s Status) from(file *string, line *int) string {
	if s.Policy.Origin != OriginDirectory || file == nil || line == nil {
		return ""
	}
	return fmt.Sprintf("  %s:%d", filepath.Base(*file), *line)
}

// printSettings has the settings that are no defaults.
func (s Status) printSettings(p page) {
	for _, d := range s.Policy.Decided {
		by := string(d.By)
		switch {
		case d.By == ByDefault:
			continue
		case d.File != nil && d.Line != nil:
			by = fmt.Sprintf("%s:%d", filepath.Base(*d.File), *d.Line)
		case d.By == ByFlag:
			by = "by a flag"
		case d.By == ByPersisted:
			by = "in the persisted policy"
		}
		p.row("", "", "%s: %s (%s)", d.Key, d.Value, by)
	}
	if c := s.Policy.ChosenPorts; c != nil {
		p.row("", "", "source ports %s, clear of %s", c.Ranges, c.ClearOf)
	}
}

// counted is what the rules of a prefix counted.
func (p Prefix) counted() string {
	if p.Packets == nil || p.Bytes == nil {
		return ""
	}
	return fmt.Sprintf("  %10d connections  %s", *p.Packets, Size(*p.Bytes))
}

// printTotals has what a backend counts of a family whose prefixes it does not count, and why.
func (s Status) printTotals(p page) {
	for _, f := range s.Policy.Settings.Families() {
		packets, bytes, found := uint64(0), uint64(0), false
		for _, c := range s.Counters {
			if c.Family == f && c.Verdict != nil && *c.Verdict == policy.Keep && c.Prefix == nil {
				packets, bytes, found = packets+c.Packets, bytes+c.Bytes, true
			}
		}
		if found && s.countsNone(f) {
			p.row("", "", "%-10s  %-20s  %10d connections  %s", policy.Keep, "all of these, "+f.String(), packets, Size(bytes))
			p.row("", "", "(nftables counts by prefix up to 1,000 ranges in a family)")
		}
	}
}

// countsNone reports whether there are prefixes that keep the address, and none of them is counted.
func (s Status) countsNone(f policy.Family) bool {
	kept := func(p Prefix) bool { return p.Family == f && p.Verdict == policy.Keep }
	return slices.ContainsFunc(s.Policy.Prefixes, kept) &&
		!slices.ContainsFunc(s.Policy.Prefixes, func(p Prefix) bool { return kept(p) && p.Packets != nil })
}

// Size is a number of bytes in the largest unit that fits.
func Size(bytes uint64) string {
	const units = "KMGTPE"
	if bytes < 1024 {
		return fmt.Sprintf("%d B", bytes)
	}
	value, unit := float64(bytes)/1024, 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}

// The legend of drift.
var problems = map[backend.Problem]string{
	backend.ProblemMissing:    "should be in the kernel and is not",
	backend.ProblemUnexpected: "is in the kernel and should not be",
	backend.ProblemDifferent:  "is not what it should be",
}

func (s Status) printDrift(p page) {
	switch {
	case s.Drift == nil:
		p.row("drift", red, "unknown: kernel and policy could not be compared")
		return
	case len(s.Drift) == 0:
		p.row("drift", green, "none: the kernel is equal to the policy")
		return
	}
	p.row("drift", red, "%s:", count(len(s.Drift), "difference"))
	used := map[backend.Problem]bool{}
	p.each(len(s.Drift), func(i int) {
		d := s.Drift[i]
		used[d.Problem] = true
		p.row("", red, "%-10s  %-11s  %s", d.Problem, d.Object, d.Detail)
	})
	for _, problem := range []backend.Problem{backend.ProblemMissing, backend.ProblemUnexpected, backend.ProblemDifferent} {
		if used[problem] {
			p.row("", "", "(%s: it %s)", problem, problems[problem])
		}
	}
}

func (s Status) printPlugin(p page) {
	l := s.Plugin
	switch {
	case l.Listed != nil && *l.Listed:
		p.row("plugin", "", "in %s, position %d", text(l.Conflist), *l.Position)
	case l.Conflist != nil:
		p.row("plugin", red, "not in %s, which the runtime loads", *l.Conflist)
	default:
		p.row("plugin", red, "in no conflist that the runtime loads")
	}
	if l.Answers != nil && *l.Answers {
		p.row("", "", "the binary answers, version %s", text(l.Version))
	} else {
		p.row("", red, "the binary does not answer")
	}
	if l.Error != nil {
		p.row("", red, "%s", *l.Error)
	}
}

func (s Status) printPods(p page) {
	group := func(name, color, detail string, pods []Pod) {
		if len(pods) == 0 {
			return
		}
		p.row("", color, "%d %s%s", len(pods), name, detail)
		p.each(len(pods), func(i int) {
			pod := pods[i]
			p.row("", color, "  %-32s  %s %s  %s", pod.title(), pod.Network, pod.IfName, strings.Trim(fmt.Sprint(pod.Addresses), "[]"))
			if len(pod.SourceAddresses) > 0 {
				p.row("", color, "    source addresses: %s", strings.Trim(fmt.Sprint(pod.SourceAddresses), "[]"))
			}
			if len(pod.RefusedAnnotations) > 0 {
				p.row("", yellow, "    refused: %s", strings.Join(pod.RefusedAnnotations, ", "))
			}
		})
	}
	uncovered := "unknown"
	if s.Pods.Uncovered != nil {
		uncovered = fmt.Sprint(len(s.Pods.Uncovered))
	}
	p.row("pods", "", "%d attached, %s uncovered, %d opted out, %d bypassing", len(s.Pods.Attached), uncovered, len(s.Pods.OptedOut), len(s.Pods.Bypassing))
	group("attached", "", "", s.Pods.Attached)
	group("uncovered", red, ": the runtime knows them, and they are not on record", s.Pods.Uncovered)
	group("opted out", "", "", s.Pods.OptedOut)
	group("bypassing", yellow, ": their packets do not come by the rules", s.Pods.Bypassing)
}

func (s Status) printConflicts(p page) {
	if len(s.Conflicts) == 0 {
		p.row("conflicts", green, "none")
		return
	}
	p.row("conflicts", yellow, "%s:", count(len(s.Conflicts), "conflict"))
	p.each(len(s.Conflicts), func(i int) {
		c := s.Conflicts[i]
		p.row("", yellow, "%s, %s: %s", c.Owner, c.Where, c.Rule)
		p.row("", "", "  fix: %s", c.Fix)
	})
}

func (s Status) printRepairs(p page) {
	if s.Repairs == nil {
		return
	}
	p.row("repairs", "", "%d since the daemon started", s.Repairs.Total)
	for _, r := range s.Repairs.Last {
		by := ""
		if r.By != nil {
			by = ", changed by " + *r.By
		}
		p.row("", "", "%s  %d x %s %s%s: %s", r.Time.UTC().Format("15:04:05"), r.Count, r.Object, r.Problem, by, r.Detail)
	}
}

// marks are those of the answers of check.
var marks = map[string]struct{ mark, color string }{OK: {"✓", green}, Warn: {"!", yellow}, Fail: {"✗", red}}

// Print writes the answers for people, one line each, and the fix under what needs one.
func (c Checks) Print(to io.Writer, style Style) {
	for _, check := range c.Checks {
		m := marks[check.Status]
		for i, line := range wrap(fmt.Sprintf("%-15s %s", check.ID, check.Message), Width-2) {
			mark := " "
			if i == 0 {
				mark = style.paint(m.color, m.mark)
			}
			_, _ = fmt.Fprintln(to, mark, line)
		}
		if check.Fix != nil {
			for _, line := range wrap("fix: "+*check.Fix, Width-4) {
				_, _ = fmt.Fprintln(to, "   ", line)
			}
		}
	}
}
