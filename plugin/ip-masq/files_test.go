package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// TestFiles: what a verb does with the node's files does not depend on how many pods there are, and is little: no directory of records
// is listed, and the poller of Go's runtime, which costs five calls for each file, is left out of it.
func TestFiles(t *testing.T) {
	most := map[string]int{"ADD": 20, "DEL": 23}
	eachVariant(t, func(t *testing.T, v variant) {
		netnstest.Require(t, "strace")
		h := newHost(t, v)
		h.add(t, "first", "10.1.0.2")
		counted := map[string][]string{}
		for round, pods := range []int{2, 30} {
			for i := range pods {
				h.add(t, fmt.Sprintf("pod-%d-%d", round, i), fmt.Sprintf("10.1.%d.%d", 1+round, 1+i))
			}
			for _, verb := range []string{"ADD", "DEL"} {
				calls := h.fileCalls(t, h.request(verb, "x", "10.1.0.3"))
				counted[verb] = append(counted[verb], fmt.Sprint(len(calls)))
				if text := strings.Join(calls, "\n"); len(calls) > most[verb] || strings.Contains(text, "getdents") {
					t.Errorf("%s with %d pods: %d calls, want at most %d, and no listing:\n%s", verb, pods, len(calls), most[verb], text)
				}
			}
		}
		for verb, counts := range counted {
			if counts[0] != counts[1] {
				t.Errorf("%s: %s calls with few pods, %s with more", verb, counts[0], counts[1])
			}
		}
	})
}

// fileCalls are the plugin's system calls that name or use a path below the node's directories.
func (h *host) fileCalls(t *testing.T, r *request) (calls []string) {
	t.Helper()
	trace := filepath.Join(t.TempDir(), "trace")
	h.through = []string{"strace", "-f", "-qq", "-y", "-e", "signal=none", "-e", "trace=%file,getdents64,epoll_ctl,fcntl", "-o", trace, "--"}
	defer func() { h.through = nil }()
	h.must(t, r)
	data, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	for call := range strings.Lines(string(data)) {
		if strings.Contains(call, h.stateDir) || strings.Contains(call, h.dataDir) {
			calls = append(calls, strings.TrimSpace(call))
		}
	}
	if len(calls) == 0 {
		t.Fatal("strace saw nothing")
	}
	return calls
}
