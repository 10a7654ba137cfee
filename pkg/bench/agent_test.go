package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// agentPods are on record in every agent.
const agentPods = 110

// The steps of an agent, in the order of the columns.
const (
	stepSame = iota
	stepRead
	stepEdit
	stepLoad
	steps
)

var stepNames = [steps]string{"unchanged", "unchanged, read back", "one prefix changed", "all prefixes loaded"}

// step is something to measure, and what has to happen before.
type step struct {
	prepare func(*testing.T)
	run     func(*testing.T) Cost
}

// syncer is our agent, or programs that do the same whatever has changed: those have the last step only.
type syncer struct {
	name    string
	kind    backend.Kind // empty: not ours
	variant string       // ours is compared with those of its variant
	trace   *tracer      // nil: not traced
	steps   [steps]*step
	cpu     [steps][]float64
	asked   [steps]tally
}

// TestAgent compares a resync of our agent with the Kubernetes agent's, which loads its chain every time, and with nft -f of the
// same prefixes.
func TestAgent(t *testing.T) {
	outDir(t)
	r := newReport(fmt.Sprintf("Agent: a resync with %d pods, processor time with all children", agentPods))
	for _, n := range []int{64, 1000, 10000} {
		t.Run(short(n), func(t *testing.T) {
			all := newSyncers(t, n, false)
			for _, order := range turns(rounds(7), len(all)) {
				for _, i := range order {
					all[i].turn(t)
				}
			}
			tallies(t, n, all)
			r.section(short(n)+" prefixes, milliseconds", agentTimes(all))
			r.section(short(n)+" prefixes, ours over the others", agentRatios(all))
			r.section(short(n)+" prefixes, programs started; KiB to and from the kernel", agentTallies(all))
			r.printf("\nReading and checking the configuration file, beside that: %s ms.\n", number(median(loads(t, n))))
			agentGoals(r, n, all)
		})
	}
	r.done(t, "agent.md")
}

func newSyncers(t *testing.T, n int, traced bool) []*syncer {
	t.Helper()
	p := policyOf(n, 1)
	var all []*syncer
	for _, kind := range kinds() {
		all = append(all, ourSyncer(t, kind, p, newTracer(t, traced)))
	}
	for _, variant := range netnstest.Variants() {
		all = append(all, oldSyncer(t, variant, p, newTracer(t, traced)))
	}
	return append(all, setSyncer(t, p, newTracer(t, traced)))
}

// ourSyncer goes from step to step. The first sync after a write reads the kernel; another one need not, where the kernel
// counts its changes.
func ourSyncer(t *testing.T, kind backend.Kind, p policy.Policy, trace *tracer) *syncer {
	t.Helper()
	h := newAgent(t, kind, agentPods, trace.args()...)
	to := func(p policy.Policy) func(*testing.T) { return func(t *testing.T) { h.sync(t, kind, p) } }
	run := func(t *testing.T) Cost { return h.sync(t, kind, p).Cost }
	return &syncer{
		name: "ours, " + string(kind), kind: kind, variant: variantOf(kind), trace: trace,
		steps: [steps]*step{
			stepLoad: {to(policyOf(4, 1)), run},
			stepEdit: {to(touched(p)), run},
			stepRead: {func(*testing.T) {}, run},
			stepSame: {func(t *testing.T) { to(p)(t); rest(t, h, kind, p) }, run},
		},
	}
}

// restTime is how long a generation of the kernel's rules must have been known before a Sync relies on it.
const restTime = 60 * time.Millisecond

// rest brings an agent to where every further resync of its life is: it has read back what it wrote, at a generation that it knows.
func rest(t *testing.T, h *host, kind backend.Kind, p policy.Policy) {
	t.Helper()
	for range 2 {
		time.Sleep(restTime)
		h.sync(t, kind, p)
	}
}

// oldSyncer starts the programs that the Kubernetes agent starts at every resync. What the agent itself needs is left out.
func oldSyncer(t *testing.T, variant string, p policy.Policy, trace *tracer) *syncer {
	t.Helper()
	h := newHost(t, variant, trace.args()...)
	installOld(t, h, p)
	chain := oldChain(p)
	s := &syncer{name: "old agent, iptables-" + variant, variant: variant, trace: trace}
	s.steps[stepLoad] = &step{func(*testing.T) {}, func(t *testing.T) Cost {
		create := h.try(t, Command{Args: []string{"iptables", "-w", "-t", "nat", "-N", oldName}})
		check := h.exec(t, Command{Args: append([]string{"iptables", "-w", "-t", "nat", "-C"}, oldRoot...)})
		load := h.restore(t, chain)
		return Cost{CPU: create.CPU + check.CPU + load.CPU, Wall: create.Wall + check.Wall + load.Wall}
	}}
	return s
}

// setSyncer replaces the contents of an interval set, as an agent would that runs nft.
func setSyncer(t *testing.T, p policy.Policy, trace *tracer) *syncer {
	t.Helper()
	h := newHost(t, "nft", trace.args()...)
	nft := func(input string) func(*testing.T) Cost {
		return func(t *testing.T) Cost {
			return h.exec(t, Command{Args: []string{"nft", "-f", "-"}, Stdin: input}).Cost
		}
	}
	nft(setTable)(t)
	s := &syncer{name: nftName, variant: "nft", trace: trace}
	s.steps[stepLoad] = &step{func(*testing.T) {}, nft(setContents(p))}
	return s
}

const nftName = "nft -f of one set"

// each takes the steps from the last to the first: a load leaves things as the next step wants them.
func (s *syncer) each(t *testing.T, do func(i int, st *step)) {
	t.Helper()
	for i := steps - 1; i >= 0; i-- {
		if st := s.steps[i]; st != nil {
			st.prepare(t)
			do(i, st)
		}
	}
}

// turn measures every step once.
func (s *syncer) turn(t *testing.T) {
	t.Helper()
	s.each(t, func(i int, st *step) { s.cpu[i] = append(s.cpu[i], milliseconds(st.run(t).CPU)) })
}

// tallies does every step once more, on traced hosts, because a trace costs time.
func tallies(t *testing.T, n int, all []*syncer) {
	t.Helper()
	for i, s := range newSyncers(t, n, true) {
		s.each(t, func(i int, st *step) { s.asked[i] = s.trace.during(t, func() { st.run(t) }) })
		all[i].asked = s.asked
	}
}

// loads measures what the file costs.
func loads(t *testing.T, n int) (cpu []float64) {
	t.Helper()
	h := newHost(t, "nft")
	path := filepath.Join(h.StateDir, "config")
	if err := os.WriteFile(path, []byte(yaml(policyOf(n, 1))), 0o644); err != nil {
		t.Fatal(err)
	}
	for range rounds(7) {
		var c Cost
		h.call(t, "Load", path, &c)
		cpu = append(cpu, milliseconds(c.CPU))
	}
	return cpu
}
