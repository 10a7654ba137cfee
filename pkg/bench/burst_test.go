package bench

import (
	"fmt"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
)

// flatKind is the backend whose goals are set against the floor.
const flatKind = backend.NFTables

// A burst is a node that starts all its pods at once.
const (
	burstSize  = 100
	firstBurst = 8000
	burstFloor = 1.5
)

// burstScene is where only ours and the floor are compared, unless the whole grid is wanted: the reference ways work there
// for minutes, by retrying what the others disturb.
var burstScene = scene{1000, 10000}

func measureBursts(t *testing.T, r *report) {
	t.Helper()
	for _, s := range []scene{scenes[0], burstScene} {
		t.Run("burst, "+s.String(), func(t *testing.T) {
			ways := newWays(t, s, s != burstScene || full())
			for round, order := range turns(rounds(5), len(ways)) {
				for _, i := range order {
					if round == 0 || !ways[i].slow(s) {
						ways[i].burst(t)
					}
				}
			}
			r.section(fmt.Sprintf("%d pods at once, %s", burstSize, s), burstTable(ways))
			burstGoals(r, s, ways)
		})
	}
}

// slow ways have one turn, in which everybody has one: a ratio to them needs no more.
func (w *way) slow(s scene) bool {
	if w.kind == "" {
		return w.variant != ""
	}
	return s == burstScene && w.kind != flatKind
}

// burst adds and deletes all pods at once. A call may run out of time on a node that is slow enough, and that is counted; but
// one that says it is done must have done it.
func (w *way) burst(t testing.TB) {
	t.Helper()
	added := w.atOnce(t, "ADD", &w.add)
	if got := w.standing(t); got < added && w.variant != "" {
		t.Errorf("%s: %d pods stand after %d successful calls of ADD", w.name, got, added)
	}
	deleted := w.atOnce(t, "DEL", &w.del)
	if left := w.standing(t); left > burstSize-deleted {
		t.Errorf("%s: %d pods stand after %d successful calls of DEL", w.name, left, deleted)
	}
}

// atOnce returns how many calls succeeded.
func (w *way) atOnce(t testing.TB, verb string, series *costs) int {
	t.Helper()
	var o Outcome
	w.call(t, "Burst", w.commands(t, verb), &o)
	series.take(o.Cost)
	w.failed += o.Code
	if o.Code > 0 {
		t.Logf("%s: %d of %d calls of %s failed, one so: %s", w.name, o.Code, burstSize, verb, o.Stderr)
	}
	return burstSize - o.Code
}

func (w *way) commands(t testing.TB, verb string) []Command {
	t.Helper()
	all := make([]Command, burstSize)
	for i := range all {
		all[i] = w.command(t, verb, fmt.Sprintf("burst-%03d", i), firstBurst+i)
	}
	return all
}

func burstTable(ways []*way) *table {
	tab := &table{head: []string{"", "ADD wall ms", "× floor", "CPU ms", "DEL wall ms", "× floor", "CPU ms", "failed"}}
	floor := ways[0]
	for _, w := range listed(ways) {
		row := []string{w.name}
		for _, pair := range [][2]costs{{w.adds(), floor.add}, {w.dels(), floor.del}} {
			row = append(row, number(median(pair[0].wall)), number(ratio(pair[0].wall, pair[1].wall)), number(median(pair[0].cpu)))
		}
		tab.add(append(row, fmt.Sprint(w.failed))...)
	}
	return tab
}

func burstGoals(r *report, s scene, ways []*way) {
	for _, w := range ways {
		if w.kind == "" {
			continue
		}
		what := fmt.Sprintf("%d at once, %s, %s", burstSize, s, w.name)
		r.goal(what+": failed calls", 0, float64(w.failed))
		if w.kind == flatKind {
			r.goal(what+": wall over plugins that do nothing", burstFloor, ratio(w.add.wall, ways[0].add.wall))
		}
		wall := func(c costs) []float64 { return c.wall }
		if best, over := bestReference(ways, w, wall); best != nil {
			r.goal(what+": wall over the best reference way, "+best.name, goalReference, over)
		}
	}
}
