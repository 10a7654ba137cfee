package bench

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// To have a thousand pods present, a reference plugin would work for minutes. So it adds two, and what the second one put
// into table nat is repeated with other names, addresses and ports in one transaction.

const seedPod = 7001

var (
	ownChain = regexp.MustCompile(`CNI-(?:DN-)?([0-9a-f]{16,})`)
	assigned = regexp.MustCompile(`"address":\s*"([0-9.]+)/`)
)

// multiply leaves n pods of the way on its host.
func (w *way) multiply(t testing.TB, n int) {
	t.Helper()
	if n == 0 {
		return
	}
	w.exec(t, w.command(t, "ADD", "present-first", seedPod-1))
	before := strings.Split(w.saved(t), "\n")
	result := w.exec(t, w.command(t, "ADD", "present-seed", seedPod)).Stdout
	share := added(before, strings.Split(w.saved(t), "\n"))
	found := assigned.FindStringSubmatch(result)
	if len(share) == 0 || found == nil {
		t.Fatalf("%s: a pod left no trace: %s", w.name, result)
	}
	text := strings.Join(share, "\n")
	var all []string
	for i := range n {
		all = append(all, rename(text, found[1], i))
	}
	// Chains first: a rule may go to one that is declared with it.
	lines := strings.Split(strings.Join(all, "\n"), "\n")
	slices.SortStableFunc(lines, func(a, b string) int { return strings.Compare(b[:1], a[:1]) })
	w.restore(t, "*nat\n"+strings.Join(lines, "\n")+"\nCOMMIT\n")
}

// added are the chains and rules that only after has; ":" sorts behind "-".
func added(before, after []string) (lines []string) {
	for _, l := range after {
		chainOrRule := strings.HasPrefix(l, "-A ") || strings.HasPrefix(l, ":CNI-")
		if chainOrRule && !slices.Contains(before, l) {
			lines = append(lines, l)
		}
	}
	return lines
}

// rename makes pod i of the seed's share.
func rename(text, addr string, i int) string {
	pairs := []string{
		"present-seed", fmt.Sprintf("present-%05d", i),
		addr, podAddress(i).String(),
		fmt.Sprint(hostPort(seedPod)), fmt.Sprint(40000 + i),
	}
	for _, chain := range ownChain.FindAllStringSubmatch(text, -1) {
		pairs = append(pairs, chain[1], fmt.Sprintf("%0*x", len(chain[1]), i))
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

func TestRename(t *testing.T) {
	share := ":CNI-DN-0123456789abcdef01234 - [0:0]\n" +
		`-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat id: \"present-seed\"" --dports 27001 -j CNI-DN-0123456789abcdef01234` + "\n" +
		"-A CNI-DN-0123456789abcdef01234 -p tcp --dport 27001 -j DNAT --to-destination 10.245.28.89:80"
	got := rename(share, "10.245.28.89", 17)
	for _, gone := range []string{"seed", "27001", "10.245.28.89", "0123456789abcdef"} {
		if strings.Contains(got, gone) {
			t.Errorf("still %s in\n%s", gone, got)
		}
	}
	if want := ":CNI-DN-000000000000000000011 - [0:0]\n"; !strings.HasPrefix(got, want) {
		t.Errorf("got\n%s\nwant it to begin with %s", got, want)
	}
}
