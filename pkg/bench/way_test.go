package bench

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// way is a CNI plugin on a host of its own, and what its calls cost turn by turn.
type way struct {
	name    string
	program string
	kind    backend.Kind // empty: not ours
	variant string       // of iptables; a way is compared with those of its variant
	less    *way         // what this way costs is its own cost less that one's, such as a bridge's without masquerading
	main    bool         // makes the interface itself: no previous result
	entry   func(pod int) map[string]any
	*host
	netns *netnstest.Pod

	add, del  costs
	processes [2]int // started by ADD and DEL
	failed    int    // calls, of bursts
}

// costs are series in milliseconds.
type costs struct{ cpu, wall []float64 }

func (c *costs) take(o Cost) {
	c.cpu, c.wall = append(c.cpu, milliseconds(o.CPU)), append(c.wall, milliseconds(o.Wall))
}

func (c costs) minus(d costs) costs {
	return costs{paired(c.cpu, d.cpu, difference), paired(c.wall, d.wall, difference)}
}

// adds and dels are the series that count.
func (w *way) adds() costs {
	if w.less != nil {
		return w.add.minus(w.less.add)
	}
	return w.add
}

func (w *way) dels() costs {
	if w.less != nil {
		return w.del.minus(w.less.del)
	}
	return w.del
}

// command is one call of the plugin, as a runtime makes it. pod tells addresses and ports apart, container the owner.
func (w *way) command(t testing.TB, verb, container string, pod int) Command {
	t.Helper()
	conf := map[string]any{"cniVersion": "1.0.0", "name": "bench", "type": filepath.Base(w.program)}
	if !w.main {
		conf["prevResult"] = w.previous(pod)
	}
	maps.Copy(conf, w.entry(pod))
	stdin, err := json.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	return Command{Args: []string{w.program}, Stdin: string(stdin), Env: []string{
		"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + container, "CNI_NETNS=" + w.netns.Path,
		fmt.Sprintf("CNI_IFNAME=e%d", pod), "CNI_ARGS=", "CNI_PATH=" + netnstest.Bin(t, "tools"),
	}}
}

func (w *way) previous(pod int) any {
	return map[string]any{
		"cniVersion": "1.0.0",
		"interfaces": []any{map[string]any{"name": fmt.Sprintf("e%d", pod), "sandbox": w.netns.Path}},
		"ips":        []any{map[string]any{"address": podAddress(pod).String() + "/16", "interface": 0}},
	}
}

// turn adds and deletes one pod.
func (w *way) turn(t testing.TB, pod int) {
	t.Helper()
	container := fmt.Sprintf("turn-%05d", pod)
	w.add.take(w.exec(t, w.command(t, "ADD", container, pod)).Cost)
	w.del.take(w.exec(t, w.command(t, "DEL", container, pod)).Cost)
}

// count counts the processes that each verb starts.
func (w *way) count(t testing.TB, pod int) {
	t.Helper()
	for i, verb := range []string{"ADD", "DEL"} {
		c := w.command(t, verb, "counted", pod)
		n, r := netnstest.CountExec(t, w.Space, netnstest.Cmd{Args: c.Args, Env: c.Env, Stdin: c.Stdin})
		if r.Code != 0 {
			t.Fatalf("%s: %s: %s%s", w.name, verb, r.Stdout, r.Stderr)
		}
		w.processes[i] = n
	}
}

// started are the processes that count.
func (w *way) started(verb int) int {
	if w.less != nil {
		return w.processes[verb] - w.less.processes[verb]
	}
	return w.processes[verb]
}

var containerID = regexp.MustCompile(`burst-\d+`)

// standing counts the containers of a burst whose rules are in the kernel.
func (w *way) standing(t testing.TB) (n int) {
	t.Helper()
	if w.kind != "" {
		w.call(t, "Standing", "burst-", &n)
		return n
	}
	found := map[string]bool{}
	for _, id := range containerID.FindAllString(w.saved(t), -1) {
		found[id] = true
	}
	return len(found)
}

func (w *way) saved(t testing.TB) string {
	t.Helper()
	return w.exec(t, Command{Args: []string{"iptables-save", "-t", "nat"}}).Stdout
}
