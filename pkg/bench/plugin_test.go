package bench

import (
	"fmt"
	"slices"
	"testing"
)

// scenes of the comparison. What a pod costs alone is what the others are compared with for growth.
var scenes = []scene{{0, 4}, {1000, 4}, {1000, 10000}}

// TestPlugin compares whole processes: ADD and DEL of our plugin with every backend of the build, of the reference ways, and
// of a plugin that does nothing.
func TestPlugin(t *testing.T) {
	outDir(t)
	r := newReport("Plugin: whole processes, processor time with all children")
	alone := map[string]float64{}
	lines := map[string][]float64{}
	var names, order []string
	for _, s := range scenes {
		t.Run(s.String(), func(t *testing.T) {
			ways := measureScene(t, s)
			r.section("One pod, "+s.String(), pluginTable(ways))
			pluginGoals(r, s, ways, alone)
			names = append(names, s.String())
			for _, w := range listed(ways) {
				order = append(order, w.name)
				lines[w.name] = append(lines[w.name], median(w.adds().cpu))
			}
		})
	}
	measureBursts(t, r)
	r.printf("\n![plot](plugin.svg)\n")
	save(t, "plugin.svg", plot("ADD, processor time", "ms", names, seriesOf(order, lines)))
	r.done(t, "plugin.md")
}

// seriesOf lists each name once, in order.
func seriesOf(order []string, values map[string][]float64) (lines []line) {
	for _, name := range order {
		if !slices.ContainsFunc(lines, func(l line) bool { return l.name == name }) {
			lines = append(lines, line{name, values[name]})
		}
	}
	return lines
}

// firstTurn is the number of the first measured pod: none of those present has it.
const firstTurn = 6000

func measureScene(t *testing.T, s scene) []*way {
	t.Helper()
	ways := newWays(t, s, true)
	for _, w := range ways {
		w.count(t, firstTurn)
	}
	for round, order := range turns(rounds(s.turns()), len(ways)) {
		for _, i := range order {
			ways[i].turn(t, firstTurn+1+round)
		}
	}
	return ways
}

// listed leaves out what is only there to be subtracted.
func listed(ways []*way) []*way {
	return slices.DeleteFunc(slices.Clone(ways), func(w *way) bool { return w.name == "" })
}

func pluginTable(ways []*way) *table {
	tab := &table{head: []string{"", "processes ADD, DEL", "ADD ms", "× floor", "wall ms", "DEL ms", "× floor", "wall ms"}}
	floor := ways[0]
	for _, w := range listed(ways) {
		row := []string{w.name, fmt.Sprintf("%d, %d", w.started(0), w.started(1))}
		for _, pair := range [][2]costs{{w.adds(), floor.add}, {w.dels(), floor.del}} {
			row = append(row, number(median(pair[0].cpu)), number(ratio(pair[0].cpu, pair[1].cpu)), number(median(pair[0].wall)))
		}
		tab.add(row...)
	}
	return tab
}

// The goals: against the best of the reference ways, against a plugin that does nothing, and against the plugin itself on an
// empty node (over the floor of the same turns, so that a slower machine is not growth).
const (
	goalReference = 1.0 / 3
	goalFloor     = 1.3
	goalGrowth    = 1.1
)

func pluginGoals(r *report, s scene, ways []*way, alone map[string]float64) {
	for _, w := range ways {
		if w.kind == "" {
			continue
		}
		best, over := bestReference(ways, w, func(c costs) []float64 { return c.cpu })
		r.goal(fmt.Sprintf("%s, %s: ADD over the best reference way, %s", s, w.name, best.name), goalReference, over)
		floor := ratio(w.add.cpu, ways[0].add.cpu)
		if w.kind == flatKind {
			r.goal(fmt.Sprintf("%s, %s: ADD over a plugin that does nothing", s, w.name), goalFloor, floor)
		}
		floors := map[string]float64{"ADD": floor, "DEL": ratio(w.del.cpu, ways[0].del.cpu)}
		for _, verb := range []string{"ADD", "DEL"} {
			if s == scenes[0] {
				alone[w.name+verb] = floors[verb]
				continue
			}
			r.goal(fmt.Sprintf("%s, %s: growth of %s, alone to here", s, w.name, verb), goalGrowth, floors[verb]/alone[w.name+verb])
		}
	}
}

// bestReference is the cheapest ADD among the reference ways of the same iptables, and what w costs of it.
func bestReference(ways []*way, w *way, of func(costs) []float64) (best *way, over float64) {
	for _, reference := range listed(ways) {
		if reference.kind != "" || reference.variant != w.variant {
			continue
		}
		if x := ratio(of(w.add), of(reference.adds())); x > over {
			best, over = reference, x
		}
	}
	return best, over
}
