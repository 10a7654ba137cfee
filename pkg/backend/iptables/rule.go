package iptables

import (
	"errors"
	"slices"
	"strings"
)

// rule is the arguments of one rule as `iptables -S` prints them after "-A CHAIN": the form in which rules of any origin
// can be compared.
type rule []string

// String returns the rule in the syntax that iptables-restore reads and -S prints.
func (r rule) String() string {
	words := make([]string, len(r))
	for i, arg := range r {
		words[i] = quote(arg)
	}
	return strings.Join(words, " ")
}

// value returns the argument after the first occurrence of an option.
func (r rule) value(option string) string {
	if i := slices.Index(r, option); i >= 0 && i+1 < len(r) {
		return r[i+1]
	}
	return ""
}

// target returns the chain or target of the rule, whether it jumps (-j) or goes (-g).
func (r rule) target() string {
	if chain := r.value("-j"); chain != "" {
		return chain
	}
	return r.value("-g")
}

// quote writes one argument so that iptables-restore reads it back unchanged.
func quote(arg string) string {
	if arg != "" && !strings.ContainsAny(arg, " \t\"'\\") {
		return arg
	}
	if strings.ContainsAny(arg, "\"'\\") {
		arg = escaper.Replace(arg)
	}
	return `"` + arg + `"`
}

var escaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `'`, `\'`)

var errUnbalanced = errors.New("unbalanced quotes")

// split is the reverse of quote for a whole line.
func split(line string) ([]string, error) {
	var args []string
	var word strings.Builder
	quoted, inWord := false, false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\' && i+1 < len(line):
			i++
			word.WriteByte(line[i])
			inWord = true
		case c == '"':
			quoted = !quoted
			inWord = true
		case c == ' ' && !quoted:
			if inWord {
				args = append(args, word.String())
			}
			word.Reset()
			inWord = false
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if inWord {
		args = append(args, word.String())
	}
	if quoted {
		return nil, errUnbalanced
	}
	return args, nil
}

// matches names the extensions by which a rule selects packets, but for the comment.
func (r rule) matches() []string {
	var names []string
	for i, word := range r[:max(len(r)-1, 0)] {
		if word == "-m" && r[i+1] != "comment" {
			names = append(names, r[i+1])
		}
	}
	return names
}
