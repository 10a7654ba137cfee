package bench

import (
	"fmt"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
)

// cell is one place of the grid.
type cell struct{ prefixes, pods int }

func (c cell) String() string { return short(c.prefixes) + " × " + short(c.pods) }

func cells() []cell {
	if !full() {
		return []cell{{4, 1}, {64, 110}, {1000, 110}, {10000, 1000}}
	}
	var all []cell
	for _, pods := range []int{1, 110, 1000, 5000} {
		for _, prefixes := range []int{4, 64, 1000, 10000, 50000} {
			all = append(all, cell{prefixes, pods})
		}
	}
	return all
}

// quiet lets deferred work of the kernel end, freed connections above all: it would be charged to whoever sends next.
const quiet = 30 * time.Millisecond

// TestDatapath compares what a new connection costs that is masqueraded, with every backend of the build, against a single
// MASQUERADE and against the Kubernetes agent's chain.
func TestDatapath(t *testing.T) {
	outDir(t)
	r := newReport("Data path: processor time of a new connection")
	times := &table{head: []string{"prefixes × pods"}}
	ratios := &table{head: times.head}
	var lines []line
	var names []string
	for _, c := range cells() {
		t.Run(c.String(), func(t *testing.T) {
			paths := measureCell(t, c)
			lines = note(times, ratios, lines, c, paths)
			datapathGoals(r, c, paths)
			names = append(names, c.String())
		})
	}
	r.section("Microseconds, medians", times)
	r.section("× floor, medians of pairs", ratios)
	r.printf("\n![plot](datapath.svg)\n")
	save(t, "datapath.svg", plot("A new connection, prefixes × pods", "× floor", names, lines))
	r.done(t, "datapath.md")
}

// measureCell measures all paths of one cell in turns.
func measureCell(t *testing.T, c cell) []*path {
	paths := []*path{floorPath(t, c)}
	for _, kind := range kinds() {
		paths = append(paths, ourPath(t, kind, c))
	}
	for _, variant := range []string{"legacy", "nft"} {
		paths = append(paths, oldPath(t, variant, c))
	}
	for _, p := range paths {
		p.calibrate(t)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for _, order := range turns(rounds(40), len(paths)) {
		forgetAll(t, paths)
		for _, i := range order {
			paths[i].measure(t)
		}
	}
	return paths
}

func forgetAll(t *testing.T, paths []*path) {
	t.Helper()
	for _, p := range paths {
		p.forget(t)
	}
	time.Sleep(quiet)
}

// note adds a cell to the tables and the plot. The first path is the floor.
func note(times, ratios *table, lines []line, c cell, paths []*path) []line {
	if lines == nil {
		lines = make([]line, len(paths))
		for i, p := range paths {
			times.head = append(times.head, p.name)
			lines[i].name = p.name
		}
		ratios.head = times.head
	}
	in, over := []string{c.String()}, []string{c.String()}
	for i, p := range paths {
		x := ratio(p.costs, paths[0].costs)
		in, over = append(in, number(median(p.costs))), append(over, number(x))
		lines[i].values = append(lines[i].values, x)
	}
	times.add(in...)
	ratios.add(over...)
	return lines
}

// datapathGoals are set for sets; linear chains cannot meet the second, and are better than nothing at the first.
func datapathGoals(r *report, c cell, paths []*path) {
	limits := map[cell]float64{{64, 110}: 1.15, {10000, 1000}: 1.5}
	for _, p := range paths {
		if limit, ok := limits[c]; ok && p.kind == backend.NFTables {
			r.goal(fmt.Sprintf("%s at %s, × floor", p.name, c), limit, ratio(p.costs, paths[0].costs))
		}
	}
}

// TestPathsSeeEveryConnection keeps the harness right where nothing is measured.
func TestPathsSeeEveryConnection(t *testing.T) {
	requireTools(t)
	c := cell{prefixes: 64, pods: 3}
	for _, kind := range kinds() {
		ourPath(t, kind, c).measure(t)
	}
	oldPath(t, "legacy", c).measure(t)
	floorPath(t, c).measure(t)
}

// BenchmarkConnection is one path of the comparison on its own, for a profile or a quick look.
func BenchmarkConnection(b *testing.B) {
	requireTools(b)
	for _, kind := range kinds() {
		for _, c := range []cell{{4, 1}, {1000, 110}} {
			name := strings.ReplaceAll(fmt.Sprintf("%s/%s", kind, c), " ", "")
			b.Run(name, func(b *testing.B) { benchmarkConnection(b, ourPath(b, kind, c)) })
		}
	}
}

func benchmarkConnection(b *testing.B, p *path) {
	p.size = maxBatch
	total, n := time.Duration(0), 0
	for b.Loop() {
		total, n = total+p.measure(b), n+1
		b.StopTimer()
		p.forget(b)
		time.Sleep(quiet)
		b.StartTimer()
	}
	b.ReportMetric(float64(total.Nanoseconds())/float64(n), "cpu-ns/conn")
}
