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

// splitter splits lines into words and keeps one copy of each word: ten thousand rules of a chain differ in one.
type splitter struct {
	known map[string]string
	word  []byte
	args  []string
}

func newSplitter() *splitter { return &splitter{known: map[string]string{}} }

// split is the reverse of quote for a whole line.
func (s *splitter) split(line string) ([]string, error) {
	s.word, s.args = s.word[:0], s.args[:0]
	quoted, inWord := false, false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\' && i+1 < len(line):
			i++
			s.word, inWord = append(s.word, line[i]), true
		case c == '"':
			quoted, inWord = !quoted, true
		case c == ' ' && !quoted:
			s.endWord(inWord)
			inWord = false
		default:
			s.word, inWord = append(s.word, c), true
		}
	}
	s.endWord(inWord)
	if quoted {
		return nil, errUnbalanced
	}
	return slices.Clone(s.args), nil
}

func (s *splitter) endWord(inWord bool) {
	if inWord {
		word, known := s.known[string(s.word)]
		if !known {
			word = string(s.word)
			s.known[word] = word
		}
		s.args = append(s.args, word)
	}
	s.word = s.word[:0]
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
