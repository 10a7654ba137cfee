package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// The load of the long run: few connections, so that it can run beside other work, and every second another pod that takes over the
// address of a former one.
const (
	memoryRate  = 1_000
	memoryShort = time.Minute // an hour with BENCH_FULL
	memoryParts = 6
)

// TestMemory watches the resident memory of an agent that logs connections, while pods come and go and the log is rotated. What grew
// with the number of connections or pods there have ever been would show.
func TestMemory(t *testing.T) {
	outDir(t)
	requireTools(t)
	lasts := memoryShort
	if full() {
		lasts = time.Hour
	}
	log := filepath.Join(t.TempDir(), "log")
	l := newLogged(t, "--translation-log", log, "--translation-log-starts", "--translation-log-max-size", "8", "--translation-log-max-files", "2")
	replaced := newReplacer(t, l)
	cpu, began := l.cpu(t), time.Now()
	var resident, anonymous []float64
	for second := range int(lasts.Seconds()) {
		replaced.next(t)
		for part := range 10 {
			if _, err := l.batch(memoryRate / 10); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Until(began.Add(time.Duration(second)*time.Second + time.Duration(part+1)*time.Second/10)))
		}
		resident, anonymous = append(resident, l.resident(t)), append(anonymous, statusOf(t, l.pid, "RssAnon"))
	}
	took := time.Since(began)
	l.awaitEnds(t)
	sent, lines, lost := memoryRate*len(resident), l.metric("translation_log_lines_total"), l.metric("translation_log_lost_total")
	if int(lines) != 2*sent && lost == 0 {
		t.Errorf("%d connections and %v lines, and nothing is said to be lost", sent, lines)
	}
	files, _ := filepath.Glob(log + "*")
	r := newReport(fmt.Sprintf("Memory: an agent that logs the start and end of %d connections a second for %v, while a pod is replaced every second", memoryRate, lasts))
	r.printf("\n%d connections in %v, %v lines in files of at most 8 MiB (%d kept), %v lost; %d pods replaced; the agent took %s %% of a core.\n",
		sent, took.Round(time.Second), lines, len(files), lost, replaced.done, number(100*(l.cpu(t)-cpu).Seconds()/took.Seconds()))
	r.section("resident memory, MiB", memoryTable(resident))
	r.section("of it, without the pages of the program's file", memoryTable(anonymous))
	r.goal("events or lines lost", 0, lost)
	r.goal("resident memory (median) in the last part, over that in the second", 1.05, median(part(resident, memoryParts-1))/median(part(resident, 1)))
	r.done(t, "memory.md")
}

func memoryTable(resident []float64) *table {
	tab := &table{head: []string{"part of the time", "least", "median", "most"}}
	for i := range memoryParts {
		p := part(resident, i)
		tab.add(fmt.Sprintf("%d of %d", i+1, memoryParts), number(slices.Min(p)), number(median(p)), number(slices.Max(p)))
	}
	return tab
}

// part is the ith of equal parts.
func part(values []float64, i int) []float64 {
	return values[i*len(values)/memoryParts : (i+1)*len(values)/memoryParts]
}

// replacer runs the plugin: a pod goes, and the next has its address.
type replacer struct {
	*logged
	netns *netnstest.Pod
	done  int
}

func newReplacer(t *testing.T, l *logged) *replacer {
	t.Helper()
	return &replacer{logged: l, netns: l.NewPod(t, "replaced")}
}

func (r *replacer) next(t *testing.T) {
	t.Helper()
	address := r.done % logPods
	r.plugin(t, "DEL", r.done, address)
	r.plugin(t, "ADD", r.done+logPods, address)
	r.done++
}

func (r *replacer) plugin(t *testing.T, verb string, number, address int) {
	t.Helper()
	conf, err := json.Marshal(map[string]any{
		"cniVersion": "1.0.0", "name": "bench", "type": "ip-masq", "backend": "nftables", "stateDir": r.StateDir, "dataDir": r.DataDir,
		"prevResult": map[string]any{
			"cniVersion": "1.0.0",
			"interfaces": []any{map[string]any{"name": "eth0", "sandbox": r.netns.Path}},
			"ips":        []any{map[string]any{"address": podAddress(address).String() + "/16", "interface": 0}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	result, err := r.Exec(context.Background(), netnstest.Cmd{
		Args: []string{netnstest.Bin(t, "ip-masq")}, Stdin: string(conf),
		Env: []string{
			"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + sandbox(number), "CNI_NETNS=" + r.netns.Path, "CNI_IFNAME=eth0",
			"CNI_ARGS=K8S_POD_NAMESPACE=bench;K8S_POD_NAME=pod-" + strconv.Itoa(number), "CNI_PATH=" + netnstest.Bin(t, "tools"),
		},
	})
	if err != nil || result.Code != 0 {
		t.Fatalf("%s: %v, exit %d\n%s%s", verb, err, result.Code, result.Stdout, result.Stderr)
	}
}
