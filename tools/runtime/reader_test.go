package runtime

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// reader does what it is told, on a node with a network, and a copy of the checkout in /src.
type reader struct {
	*machine
	internet, corp *recorder
	daemons        map[string]*process
	before         []byte // the network as it was
	proved, gone   bool
}

func newReader(t *testing.T) *reader {
	t.Helper()
	disk := newDisk(t)
	for _, plugin := range []string{"bridge", "host-local"} {
		writeFile(t, filepath.Join(disk, "opt/cni/bin", plugin), readFile(t, filepath.Join("bin/tools", plugin)), 0o755)
	}
	writeFile(t, filepath.Join(disk, "talker"), readFile(t, testkit.Program("talker")), 0o755)
	r := &reader{before: clusterNetwork(t, "1.0.0"), daemons: map[string]*process{}}
	writeFile(t, filepath.Join(disk, confFile), r.before, 0o644)
	copyCheckout(t, filepath.Join(disk, "src"))
	writeFile(t, filepath.Join(disk, "src/config"), []byte("nonMasqueradeCIDRs: [10.0.0.0/8]\n"), 0o644)
	r.machine = boot(t, disk)
	r.internet, r.corp = record(t, r.Internet), record(t, r.Corp)
	return r
}

// copyCheckout copies what a clone would have.
func copyCheckout(t *testing.T, to string) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (path == "bin" || path == ".git"):
			return fs.SkipDir
		case path == ".git": // the file that a worktree has
			return nil
		case !e.Type().IsRegular():
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		writeFile(t, filepath.Join(to, path), readFile(t, path), info.Mode())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// prove attaches a pod that talks from its first breath.
func (r *reader) prove(t *testing.T) {
	t.Helper()
	if r.proved {
		return
	}
	r.proved = true
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	r.run(t, "ip", "netns", "add", "pod")
	cnitool := []string{"NETCONFPATH=/etc/cni/net.d", "CNI_PATH=/opt/cni/bin", "cnitool"}
	added := r.run(t, append(cnitool, "add", "pods", "/run/netns/pod")...)
	began := time.Now()
	talker := r.start(t, "ROLE=app", "nsenter", "--net=/run/netns/pod", "/talker", "192.0.2.2:7000", "10.99.0.2:7000")
	r.internet.first(t, name, "app")
	r.internet.saw(t, name, began, nodeToInternet)
	r.corp.first(t, name, "app")
	r.corp.saw(t, name, began, addressOf(t, added))
	talker.stop(syscall.SIGKILL)
	r.run(t, append(cnitool, "del", "pods", "/run/netns/pod")...)
}

func addressOf(t *testing.T, result string) string {
	t.Helper()
	var r struct{ IPs []struct{ Address string } }
	if err := json.Unmarshal([]byte(result), &r); err != nil || len(r.IPs) == 0 {
		t.Fatalf("no address, %v: %s", err, result)
	}
	address, _, _ := strings.Cut(r.IPs[0].Address, "/")
	return address
}
