package soak

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// shortTime is how long the short form runs.
const shortTime = 30 * time.Second

func TestMain(m *testing.M) { os.Exit(testkit.Main(m, testkit.Programs)) }

// TestSoak goes on in rounds until the time is over: several things happen to the node at once, then it comes to rest, and
// then kernel, records and model must be equal. One iptables is the host's in one run; the seed says which.
func TestSoak(t *testing.T) {
	netnstest.Require(t, "iptables-nft", "iptables-legacy", "nft", "mount")
	seed, duration := settings(t)
	t.Logf("replay with SOAK_SEED=%d go test ./pkg/soak (add SOAK_TIME=10m for more rounds)", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	r := newRun(t, rng)
	for end := time.Now().Add(duration); time.Now().Before(end) && !t.Failed(); r.round++ {
		r.happen()
		r.rest()
	}
	t.Logf("seed %d: %d rounds: %s", seed, r.round, r.done)
	if t.Failed() {
		t.Logf("SOAK_SEED=%d go test ./pkg/soak: failed in round %d; what happened:\n%s\nlog of the agent:\n%s", seed, r.round-1, r.history(), r.log())
	}
}

// settings are the seed, a random one unless SOAK_SEED is set, and the time, SOAK_TIME.
func settings(t *testing.T) (seed uint64, duration time.Duration) {
	t.Helper()
	seed, duration = uint64(rand.Uint32()), shortTime
	var err error
	if text := os.Getenv("SOAK_SEED"); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("SOAK_SEED: %v", err)
		}
	}
	if text := os.Getenv("SOAK_TIME"); text != "" {
		if duration, err = time.ParseDuration(text); err != nil {
			t.Fatalf("SOAK_TIME: %v", err)
		}
	}
	return seed, duration
}
