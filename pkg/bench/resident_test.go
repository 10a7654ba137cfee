package bench

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
)

// residentGoal is for the backend with sets, at 10,000 prefixes.
const residentGoal = 12

// restAfterSync is more than the agent takes until it has given back what its first syncs needed.
const restAfterSync = 10 * time.Second

// TestResident looks what an agent keeps in memory once it is done with its prefixes. Pages of its file are the kernel's, which maps
// what lies around each page that is needed, and takes them back when it wants to.
func TestResident(t *testing.T) {
	outDir(t)
	r := newReport("Resident: the memory of an agent some seconds after its rules stand, MiB")
	tab := &table{head: []string{"", "prefixes", "resident", "its own", "pages of its file", "the most ever"}}
	for _, kind := range kinds() {
		if kind == backend.IPTablesLegacy {
			continue // only a process can tell when its rules stand
		}
		for _, prefixes := range []int{4, 1000, 10000} {
			t.Run(fmt.Sprintf("%s, %s", kind, short(prefixes)), func(t *testing.T) {
				pid := newDaemon(t, kind, prefixes).agent.Pid
				time.Sleep(restAfterSync)
				resident := statusOf(t, pid, "VmRSS")
				tab.add(string(kind), short(prefixes), number(resident), number(statusOf(t, pid, "RssAnon")), number(statusOf(t, pid, "RssFile")), number(statusOf(t, pid, "VmHWM")))
				if kind == flatKind && prefixes == 10000 {
					r.goal(fmt.Sprintf("%s prefixes, %s: resident, MiB", short(prefixes), kind), residentGoal, resident)
				}
			})
		}
	}
	r.section("by backend and prefixes", tab)
	r.done(t, "resident.md")
}

// statusOf reads a size of /proc/PID/status, in MiB.
func statusOf(t *testing.T, pid int, field string) float64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(field + `:\s+(\d+) kB`).FindSubmatch(data)
	if found == nil {
		t.Fatalf("no %s in %s", field, data)
	}
	kib, _ := strconv.Atoi(string(found[1]))
	return float64(kib) / 1024
}
