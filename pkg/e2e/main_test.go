package e2e

import (
	"os"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m, testkit.Programs, testkit.Previous)) }

// each runs a test once per variant, each on a node of its own, side by side.
func each(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	eachOf(t, testkit.Variants(), test)
}

// eachIPTables is for what only iptables has.
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
