package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// The environment of a run. Without an output directory the comparisons are skipped: `make test` is about right and wrong.
const (
	envDir    = "BENCH_DIR"    // where the tables and the plots go
	envFull   = "BENCH_FULL"   // the whole grids
	envRounds = "BENCH_ROUNDS" // turns per comparison
	envWorker = "BENCH_WORKER" // set by startWorker: this process is a worker, and that is its socket
)

func TestMain(m *testing.M) {
	if socket := os.Getenv(envWorker); socket != "" {
		if err := serveWorker(socket); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// outDir is where a comparison writes; it skips the test when nobody asked for one.
func outDir(t *testing.T) string {
	t.Helper()
	dir := os.Getenv(envDir)
	if dir == "" {
		t.Skip("measures for minutes; make bench runs it")
	}
	return dir
}

func full() bool { return os.Getenv(envFull) != "" && os.Getenv(envFull) != "0" }

// rounds is the number of turns, unless the environment says otherwise.
func rounds(n int) int {
	if asked, err := strconv.Atoi(os.Getenv(envRounds)); err == nil && asked > 0 {
		return asked
	}
	return n
}

// save writes one file of the report.
func save(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(outDir(t), name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// requireTools skips where the programs that everything here needs are missing.
func requireTools(t testing.TB) {
	t.Helper()
	netnstest.Require(t, "iptables-nft", "iptables-legacy", "nft", "conntrack", "strace", "bridge", "host-local", "portmap")
}
