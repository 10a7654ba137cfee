package bench

import (
	"iter"
	"slices"
	"testing"
	"time"
)

// median of nothing is 0.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	switch {
	case n == 0:
		return 0
	case n%2 == 1:
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// paired combines the values of the same turn.
func paired(a, b []float64, with func(a, b float64) float64) []float64 {
	out := make([]float64, min(len(a), len(b)))
	for i := range out {
		out[i] = with(a[i], b[i])
	}
	return out
}

func quotient(a, b float64) float64   { return a / b }
func difference(a, b float64) float64 { return a - b }

// ratio is the median of the quotients of single turns.
func ratio(a, b []float64) float64 { return median(paired(a, b, quotient)) }

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// turns yields for each round the order in which the subjects have their turn: each round begins with another one, so that
// none is always first.
func turns(rounds, subjects int) iter.Seq2[int, []int] {
	return func(yield func(int, []int) bool) {
		for round := range rounds {
			order := make([]int, subjects)
			for i := range order {
				order[i] = (i + round) % subjects
			}
			if !yield(round, order) {
				return
			}
		}
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 8}, 3}} {
		if got := median(c.values); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.values, got, c.want)
		}
	}
}

func TestRatioPairsTurns(t *testing.T) {
	// The machine slows down threefold: the medians would say 1.5, the turns say 2.
	slow, fast := []float64{2, 4, 12}, []float64{1, 2, 6}
	if got := ratio(slow, fast); got != 2 {
		t.Errorf("ratio = %v, want 2", got)
	}
}

func TestTurnsRotate(t *testing.T) {
	var all []int
	for _, order := range turns(2, 3) {
		all = append(all, order...)
	}
	if want := []int{0, 1, 2, 1, 2, 0}; !slices.Equal(all, want) {
		t.Errorf("order %v, want %v", all, want)
	}
}
