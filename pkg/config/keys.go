package config

import (
	"fmt"
	"slices"
	"strings"
)

// checkKeys reports the keys that are unknown or given twice and returns the others. Of two the last one counts, as in the
// decoder of the values.
func (d decoder) checkKeys(keys outline) map[string]entry {
	known := make(map[string]entry, len(knownKeys))
	for _, e := range keys {
		if !slices.Contains(knownKeys, e.key) {
			d.strictness(e.at, fmt.Sprintf("unknown key %q", e.key), "is ignored", adviceFor(e.key))
			continue
		}
		if earlier, twice := known[e.key]; twice {
			problem := fmt.Sprintf("key %q is given twice, first in line %d", e.key, earlier.at.line)
			d.strictness(e.at, problem, "and the last one counts", "keep one of them")
		}
		known[e.key] = e
	}
	return known
}

// strictness reports what is an error or, in lenient mode, a warning that names the consequence.
func (d decoder) strictness(at position, problem, consequence, advice string) {
	if d.opts.Lenient {
		d.report.add(d.place(at), Warning, problem+" "+consequence+": "+advice)
		return
	}
	d.report.add(d.place(at), Error, problem+": "+advice)
}

// adviceFor names the known key nearest to an unknown one, whatever the letter case, or all of them where none is near.
func adviceFor(key string) string {
	nearest, best := "", len(key)/3+1
	for _, known := range knownKeys {
		if d := distance(strings.ToLower(key), strings.ToLower(known)); d < best {
			nearest, best = known, d
		}
	}
	if nearest == "" {
		return "the known keys are " + strings.Join(knownKeys, ", ")
	}
	return "did you mean " + nearest + "?"
}

// distance counts the letters to insert, delete or replace to get from a to b. A key much longer than any known one is
// not worth the table.
func distance(a, b string) int {
	if len(a) > 2*len(b) {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
