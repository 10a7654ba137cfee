package iptables

import (
	"fmt"
	"strings"
	"testing"
	"unsafe"
)

// TestWordsAreKeptOnce: of ten thousand rules that a chain has, an agent keeps each word once, and no more room than the words take.
func TestWordsAreKeptOnce(t *testing.T) {
	var b strings.Builder
	b.WriteString("-N C\n")
	for i := range 100 {
		fmt.Fprintf(&b, "-A C -d 10.0.%d.0/24 -m comment --comment \"%s\" -m addrtype ! --dst-type LOCAL -j RETURN\n", i, keepComment)
	}
	rules := parseChains(b.String())["C"]
	kept := map[*byte]string{}
	for _, r := range rules {
		if cap(r) > 14 {
			t.Fatalf("room for %d words in %s", cap(r), r)
		}
		for _, word := range r {
			kept[unsafe.StringData(word)] = word
		}
	}
	if want := 100 + 11; len(rules) != 100 || len(kept) != want { // "-m" stands twice in each rule
		t.Errorf("%d copies of words in %d rules, want %d", len(kept), len(rules), want)
	}
}

// TestSplit is the reverse of quote.
func TestSplit(t *testing.T) {
	for line, want := range map[string][]string{
		"":                    nil,
		"a  b":                {"a", "b"},
		`-m x --comment "a b`: nil,
		`"" 'q' a\ b "c\"d"`:  {"", "'q'", "a b", `c"d`},
		rule{"--comment", `it's "so" \`, "-j", "X"}.String(): {"--comment", `it's "so" \`, "-j", "X"},
	} {
		got, _ := newSplitter().split(line)
		if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}
