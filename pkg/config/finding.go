package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity says whether a finding makes the configuration unusable.
type Severity string

// The two severities.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Finding is one thing wrong with a configuration, and the fix. Line and Column count from 1; 0 means unknown.
type Finding struct {
	File     string   `json:"file"`
	Line     int      `json:"line,omitempty"`
	Column   int      `json:"column,omitempty"`
	Severity Severity `json:"severity"`
	Key      string   `json:"key,omitempty"` // the key of the file that it is about; empty where it is about the file
	Message  string   `json:"message"`
}

// String returns "file:line:column: error: message", the form that editors can jump to, without what is unknown.
func (f Finding) String() string {
	return f.prefix() + string(f.Severity) + ": " + f.Message
}

func (f Finding) prefix() string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File + ":")
	}
	if f.Line > 0 {
		fmt.Fprintf(&b, "%d:", f.Line)
	}
	if f.Line > 0 && f.Column > 0 {
		fmt.Fprintf(&b, "%d:", f.Column)
	}
	if b.Len() > 0 {
		b.WriteByte(' ')
	}
	return b.String()
}

// maxErrorLines bounds the text of an InvalidError: it goes into logs and probes, and a file can be wrong in 100,000 places.
const maxErrorLines = 10

// InvalidError is the error of Load and Parse: the findings that are errors. It wraps the system errors among their causes.
type InvalidError struct {
	Findings []Finding
	causes   []error
}

// Error returns one sentence per finding, one a line.
func (e *InvalidError) Error() string {
	var lines []string
	for _, f := range e.Findings[:min(len(e.Findings), maxErrorLines)] {
		lines = append(lines, f.prefix()+f.Message)
	}
	if more := len(e.Findings) - maxErrorLines; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more errors", more))
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the system errors, so that errors.Is(err, fs.ErrPermission) works.
func (e *InvalidError) Unwrap() []error { return e.causes }

// report collects findings.
type report struct {
	findings []Finding
	causes   []error
}

func (r *report) errorf(at place, format string, args ...any) {
	r.add(at, Error, fmt.Sprintf(format, args...))
}

func (r *report) add(at place, s Severity, message string) {
	r.findings = append(r.findings, Finding{at.file, at.line, at.column, s, at.key, message})
}

// sort puts the findings from index first on into the order of their places.
func (r *report) sort(first int) {
	slices.SortStableFunc(r.findings[first:], func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// failed reports whether an error is among the findings.
func (r *report) failed() bool { return r.failedSince(0) }

// failedSince is failed for the findings from index first on.
func (r *report) failedSince(first int) bool {
	return slices.ContainsFunc(r.findings[first:], func(f Finding) bool { return f.Severity == Error })
}

func (r *report) err() error {
	if !r.failed() {
		return nil
	}
	isWarning := func(f Finding) bool { return f.Severity == Warning }
	return &InvalidError{slices.DeleteFunc(slices.Clone(r.findings), isWarning), r.causes}
}
