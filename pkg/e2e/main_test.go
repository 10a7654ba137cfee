package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/registry"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// programs is where the programs under test are, built once from what is there now.
var programs string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	var err error
	if programs, err = os.MkdirTemp("", "ip-masq-e2e-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(programs) }()
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", programs+"/", "../../plugin/ip-masq", "../../cmd/ip-masq-agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

func pluginProgram() string { return filepath.Join(programs, "ip-masq") }
func agentProgram() string  { return filepath.Join(programs, "ip-masq-agent") }

// variant is one kind of rules. A further backend is one more line in variants, and its damages.
type variant struct {
	name    string
	kind    backend.Kind
	backend string // the value of --backend that leads to it
	hears   bool   // the kernel reports changes of its rules
	tools   []string
}

func variants() []variant {
	all := []variant{
		{"nft", backend.IPTablesNFT, "iptables", true, []string{"iptables-nft", "ip6tables-nft", "nft"}},
		{"legacy", backend.IPTablesLegacy, "iptables", false, []string{"iptables-legacy", "ip6tables-legacy", "nft"}},
	}
	if registry.Known(backend.NFTables) {
		all = append(all, variant{"nftables", backend.NFTables, "nftables", true, []string{"nft", "iptables-nft"}})
	}
	return all
}

func (v variant) isIPTables() bool { return v.kind != backend.NFTables }

// each runs a test once per variant, each on a node of its own, side by side.
func each(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	eachOf(t, func(variant) bool { return true }, test)
}

// eachIPTables is for what only iptables has.
func eachIPTables(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	eachOf(t, variant.isIPTables, test)
}

func eachOf(t *testing.T, wanted func(variant) bool, test func(t *testing.T, r *rig)) {
	t.Helper()
	t.Parallel()
	for _, v := range variants() {
		if !wanted(v) {
			continue
		}
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			netnstest.Require(t, v.tools...)
			test(t, newRig(t, v))
		})
	}
}
