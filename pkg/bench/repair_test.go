package bench

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// repairs are the sizes at which the daemon is timed, and how many seconds a repair may take there; 0 is no goal.
var repairs = []struct {
	kind     backend.Kind
	prefixes int
	seconds  float64
}{
	{backend.NFTables, 10_000, 1},
	{backend.NFTables, 50_000, 2},
	{backend.IPTablesNFT, 10_000, 1},
	{backend.IPTablesNFT, 20_000, 0},
}

// TestRepair flushes the shared chain while the daemon runs, and measures how long it stays empty: right after pods were added
// by the plugin, and again as soon as it is back.
func TestRepair(t *testing.T) {
	outDir(t)
	r := newReport("Repair: from the flush of the shared chain until it is back, seconds")
	times := &table{head: []string{"", "prefixes", "after 5 ADDs", "again at once", "after one more ADD", "again at once"}}
	for _, c := range repairs {
		t.Run(fmt.Sprintf("%s, %s", c.kind, short(c.prefixes)), func(t *testing.T) {
			d := newDaemon(t, c.kind, c.prefixes)
			measured := make([][]float64, 4)
			for range rounds(3) {
				for i, pods := range []int{5, 0, 1, 0} {
					d.add(t, pods)
					measured[i] = append(measured[i], d.repair(t).Seconds())
				}
			}
			row := []string{string(c.kind), short(c.prefixes)}
			worst := 0.0
			for _, m := range measured {
				row = append(row, fmt.Sprintf("%s to %s", number(slices.Min(m)), number(slices.Max(m))))
				worst = max(worst, slices.Max(m))
			}
			times.add(row...)
			if c.seconds > 0 {
				r.goal(fmt.Sprintf("%s prefixes, %s: the slowest repair, s", short(c.prefixes), c.kind), c.seconds, worst)
			}
		})
	}
	r.section("from the fastest to the slowest", times)
	r.done(t, "repair.md")
}

// daemon is a node on which the built agent runs.
type daemon struct {
	*netnstest.Node
	kind  backend.Kind
	pods  int
	netns string // of all pods
	agent *netnstest.Process
}

func newDaemon(t *testing.T, kind backend.Kind, prefixes int) *daemon {
	t.Helper()
	d := &daemon{Node: netnstest.NewNode(t), kind: kind}
	d.netns = d.NewPod(t, "pod").Path
	d.SetPATH(netnstest.IPTables(t, variantOf(kind)))
	config := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(config, []byte(yaml(policyOf(prefixes, 1))), 0o644); err != nil {
		t.Fatal(err)
	}
	d.agent = d.Start(t, netnstest.Cmd{Args: []string{
		netnstest.Bin(t, "ip-masq-agent"), "run", "--config", config, "--state-dir", d.StateDir, "--data-dir", d.DataDir,
		"--cni-cache-dir", d.CacheDir, "--cni-conf-dir", d.ConfDir, "--backend", string(choiceOf(kind)),
	}})
	d.await(t, 2*time.Minute)
	time.Sleep(3 * time.Second) // until the daemon has nothing more to do
	return d
}

// add attaches new pods with the plugin, as a runtime would.
func (d *daemon) add(t *testing.T, pods int) {
	t.Helper()
	for range pods {
		d.pods++
		stdin := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "bench", "type": "ip-masq", "stateDir": %q, "dataDir": %q, "backend": %q,
  "prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "%s"}]}}`,
			d.StateDir, d.DataDir, choiceOf(d.kind), netip.PrefixFrom(podAddress(d.pods), 32))
		result, err := d.Exec(context.Background(), netnstest.Cmd{Args: []string{netnstest.Bin(t, "ip-masq")}, Stdin: stdin, Env: []string{
			"CNI_COMMAND=ADD", "CNI_CONTAINERID=pod" + strconv.Itoa(d.pods), "CNI_IFNAME=eth0", "CNI_NETNS=" + d.netns, "CNI_PATH=/",
		}})
		if err != nil || result.Code != 0 {
			t.Fatalf("ADD: %v\n%s%s", err, result.Stdout, result.Stderr)
		}
	}
}

// repair flushes the chain and waits for it.
func (d *daemon) repair(t *testing.T) time.Duration {
	t.Helper()
	family, table := "ip", "nat"
	if d.kind == backend.NFTables {
		family, table = "inet", "ip-masq-agent"
	}
	d.Run(t, "nft", "flush", "chain", family, table, policy.DefaultChain)
	return d.await(t, 2*time.Minute)
}

// await returns after what time the shared chain has rules.
func (d *daemon) await(t *testing.T, limit time.Duration) time.Duration {
	t.Helper()
	family, table := uint8(unix.NFPROTO_IPV4), "nat"
	if d.kind == backend.NFTables {
		family, table = unix.NFPROTO_INET, "ip-masq-agent"
	}
	began := time.Now()
	filled := func() error {
		c, err := nfnl.DialFamily(family)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		there, err := c.HasRules(table, policy.DefaultChain)
		if err == nil && !there {
			err = fmt.Errorf("chain %s is empty after %v", policy.DefaultChain, time.Since(began))
		}
		return err
	}
	for {
		err := d.Do(filled)
		if err == nil {
			return time.Since(began)
		}
		if time.Since(began) > limit {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
