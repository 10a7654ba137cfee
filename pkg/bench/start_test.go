package bench

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// starts are the numbers of pods that are there before the agent, with the share of the old agent's time that the start may take;
// 0 is no goal.
var starts = []struct {
	pods  int
	share float64
}{{0, 0}, {110, 0.6}, {1000, 0}}

const startPrefixes = 4

// TestStart measures from the start of the agent's process until its rules stand, on a node that never had it, where the runtime's
// cache has pods that it has to find. The old agent is a program that starts the same programs (internal/oldagent): it does not know
// of pods.
func TestStart(t *testing.T) {
	outDir(t)
	r := newReport("Start: from the start of the agent until its rules stand, milliseconds")
	tab := &table{head: []string{"pods"}}
	for _, kind := range kinds() {
		tab.head = append(tab.head, string(kind))
	}
	for _, kind := range kinds() {
		tab.head = append(tab.head, "old agent beside "+string(kind))
	}
	for _, s := range starts {
		t.Run(fmt.Sprintf("%d pods", s.pods), func(t *testing.T) {
			ours, old := map[backend.Kind][]float64{}, map[backend.Kind][]float64{}
			for range rounds(9) {
				for _, kind := range kinds() { // each beside the one that it is compared with
					ours[kind] = append(ours[kind], milliseconds(startOurs(t, kind, s.pods)))
					old[kind] = append(old[kind], milliseconds(startOld(t, variantOf(kind))))
				}
			}
			row := []string{short(s.pods)}
			for _, kind := range kinds() {
				row = append(row, number(median(ours[kind])))
				if s.share > 0 {
					r.goal(fmt.Sprintf("%d pods, %s over the old agent", s.pods, kind), s.share, ratio(ours[kind], old[kind]))
				}
			}
			for _, kind := range kinds() {
				row = append(row, number(median(old[kind])))
			}
			tab.add(row...)
		})
	}
	r.section("medians", tab)
	r.done(t, "start.md")
}

// startOurs is a node with a network that names the plugin, and pods that were attached before that.
func startOurs(t *testing.T, kind backend.Kind, count int) time.Duration {
	t.Helper()
	d := &daemon{Node: netnstest.NewNode(t), kind: kind}
	d.netns = d.NewPod(t, "pod").Path
	d.SetPATH(netnstest.IPTables(t, variantOf(kind)))
	list := `{"cniVersion": "1.0.0", "name": "bench", "plugins": [{"type": "bridge"}, {"type": "ip-masq"}]}`
	write(t, filepath.Join(d.ConfDir, "10-bench.conflist"), list)
	for i := range count {
		id := fmt.Sprintf("present-%05d", i)
		write(t, filepath.Join(d.CacheDir, "results", "bench-"+id+"-eth0"), fmt.Sprintf(
			`{"kind": "cniCacheV1", "containerId": %q, "config": %q, "ifName": "eth0", "networkName": "bench", "netns": %q, "result": {"cniVersion": "1.0.0", "ips": [{"address": "%s/32"}]}}`,
			id, base64.StdEncoding.EncodeToString([]byte(list)), d.netns, podAddress(i)))
	}
	state, err := os.MkdirTemp("/dev/shm", "ip-masq-bench-") // in memory, as /run is: every record is synced
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(state) }()
	config := filepath.Join(t.TempDir(), "config")
	write(t, config, yaml(policyOf(startPrefixes, 1)))
	began := time.Now()
	agent := d.Start(t, netnstest.Cmd{Args: []string{
		netnstest.Bin(t, "ip-masq-agent"), "run", "--config", config, "--state-dir", state, "--data-dir", d.DataDir,
		"--cni-cache-dir", d.CacheDir, "--cni-conf-dir", d.ConfDir, "--backend", string(choiceOf(kind)),
	}})
	for !d.stands(t) && !strings.Contains(agent.Output(), "rules put in place") {
		if time.Since(began) > time.Minute {
			t.Fatalf("no rules after %s\n%s", time.Since(began), agent.Output())
		}
		time.Sleep(time.Millisecond / 2)
	}
	took := time.Since(began)
	agent.Stop(syscall.SIGKILL, time.Minute)
	return took
}

// stands reports whether the shared chain has rules. Legacy rules can only be read by a process: there the log tells, some milliseconds
// later. The socket stays open, because closing one would have the agent wait for what its probe deleted.
func (d *daemon) stands(t *testing.T) (stands bool) {
	t.Helper()
	family, table := uint8(unix.NFPROTO_IPV4), "nat"
	switch d.kind {
	case backend.IPTablesLegacy:
		return false
	case backend.NFTables:
		family, table = unix.NFPROTO_INET, "ip-masq-agent"
	}
	err := d.Do(func() error {
		c, err := nfnl.Borrow(family)
		if err != nil {
			return err
		}
		rules, err := c.RawRules(table, policy.DefaultChain)
		c.Return(err)
		stands = len(rules) > 0
		return err
	})
	return err == nil && stands
}

func write(t *testing.T, path, content string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(content), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// startOld is how long the old agent takes.
func startOld(t *testing.T, variant string) time.Duration {
	t.Helper()
	h := newHost(t, variant)
	return h.exec(t, Command{
		Args:  append([]string{helper(t, "oldagent"), oldName}, oldRoot...),
		Stdin: oldChain(policyOf(startPrefixes, 1)),
	}).Wall
}
