package agent_test

import (
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// rig is a node on which the built agent runs, and how other software looks at its rules there.
type rig struct {
	*testkit.Rig
	list  []string // prints the shared policy
	flush []string // empties it, as other software would
}

// each runs a test once per variant, each on a node of its own, side by side.
func each(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	eachOf(t, testkit.Variants(), test)
}

// eachIPTables is each for what only iptables has: listings, references, root rules.
func eachIPTables(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	eachOf(t, testkit.IPTablesVariants(), test)
}

func eachOf(t *testing.T, variants []testkit.Variant, test func(t *testing.T, r *rig)) {
	t.Helper()
	t.Parallel()
	testkit.Each(t, variants, func(t *testing.T, v testkit.Variant) {
		t.Parallel()
		test(t, newRig(t, v))
	})
}

func newRig(t *testing.T, v testkit.Variant) *rig {
	t.Helper()
	r := &rig{Rig: testkit.NewRig(t, v)}
	if !v.IsIPTables() {
		r.list = []string{"nft", "list", "table", "inet", "ip-masq-agent"}
		r.flush = []string{"nft", "flush", "chain", "inet", "ip-masq-agent", "IP-MASQ-AGENT"}
		return r
	}
	r.Auto = true
	r.list = []string{"iptables", "-w", "-t", "nat", "-S", "IP-MASQ-AGENT"}
	r.flush = []string{"iptables", "-w", "-t", "nat", "-F", "IP-MASQ-AGENT"}
	return r
}

// rules is what the kernel holds of the shared policy, empty where it is not there.
func (r *rig) rules(t *testing.T) string {
	t.Helper()
	return r.Try(t, r.list...).Stdout
}

// nat runs iptables on table nat, which has to succeed.
func (r *rig) nat(t *testing.T, args ...string) string {
	t.Helper()
	return r.Run(t, append([]string{"iptables", "-w", "-t", "nat"}, args...)...)
}
