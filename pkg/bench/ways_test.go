package bench

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// scene is what stands on a host before the measured pod comes.
type scene struct{ pods, prefixes int }

func (s scene) String() string {
	switch {
	case s.pods == 0:
		return "alone"
	case s.prefixes <= 4:
		return short(s.pods) + " pods"
	}
	return short(s.pods) + " pods, " + short(s.prefixes) + " prefixes"
}

// turns are fewer where one takes seconds.
func (s scene) turns() int {
	switch {
	case s.pods == 0:
		return 21
	case s.prefixes <= 4:
		return 11
	}
	return 7
}

// newWays makes every way of the comparison, the floor first. Without references there are only the floor and ours.
func newWays(t *testing.T, s scene, references bool) []*way {
	t.Helper()
	ways := []*way{noop(t)}
	for _, kind := range kinds() {
		ways = append(ways, ours(t, kind, s))
	}
	if !references {
		return ways
	}
	for _, variant := range netnstest.Variants() {
		ways = append(ways, goIPTables(t, variant, s), portmap(t, variant, s))
		ways = append(ways, bridge(t, variant, s)...)
	}
	return ways
}

func newWay(t *testing.T, name, program string, h *host, entry func(int) map[string]any) *way {
	t.Helper()
	return &way{name: name, program: placed(t, program), host: h, entry: entry, netns: h.NewPod(t, "pod")}
}

// placed copies a program as an installer would. What a start costs depends on how its file came to be in memory: in the large
// pieces of one writer or the small ones of another.
func placed(t *testing.T, program string) string {
	t.Helper()
	data, err := os.ReadFile(program)
	path := filepath.Join(t.TempDir(), filepath.Base(program))
	if err == nil {
		err = os.WriteFile(path, data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func nothing(int) map[string]any { return nil }

// helper is one of the plugins below internal, which scripts/bench builds.
func helper(t *testing.T, name string) string {
	return netnstest.Bin(t, filepath.Join("bench", "plugins", name))
}

func reference(t *testing.T, name string) string {
	return netnstest.Bin(t, filepath.Join("tools", name))
}

// noop is the floor: what no chained plugin can do without.
func noop(t *testing.T) *way {
	t.Helper()
	return newWay(t, "floor: a plugin that does nothing", helper(t, "noop"), newHost(t, "nft"), nothing)
}

// ours is a node in its steady state: the agent is up, the chain stands.
func ours(t *testing.T, kind backend.Kind, s scene) *way {
	t.Helper()
	h := newAgent(t, kind, s.pods)
	h.sync(t, kind, policyOf(s.prefixes, 1))
	w := newWay(t, "ours, "+string(kind), netnstest.Bin(t, "ip-masq"), h, func(int) map[string]any {
		return map[string]any{"stateDir": h.StateDir, "dataDir": h.DataDir}
	})
	w.kind, w.variant = kind, variantOf(kind)
	return w
}

// goIPTables is the reference way: make sure of the chain, append the pod's jump unless it is there.
func goIPTables(t *testing.T, variant string, s scene) *way {
	t.Helper()
	h := newHost(t, variant)
	h.restore(t, oldChain(policyOf(s.prefixes, 1)))
	w := newWay(t, "go-iptables, iptables-"+variant, helper(t, "goiptables"), h, nothing)
	w.variant = variant
	w.multiply(t, s.pods)
	return w
}

// beside makes a host for a plugin that knows no shared chain: where there are many prefixes, the old agent holds them.
func beside(t *testing.T, variant string, s scene) *host {
	t.Helper()
	h := newHost(t, variant)
	if s.prefixes > 4 {
		installOld(t, h, policyOf(s.prefixes, 1))
	}
	return h
}

func portmap(t *testing.T, variant string, s scene) *way {
	t.Helper()
	w := newWay(t, "portmap, iptables-"+variant, reference(t, "portmap"), beside(t, variant, s), func(pod int) map[string]any {
		mapping := map[string]any{"hostPort": hostPort(pod), "containerPort": 80, "protocol": "tcp"}
		return map[string]any{"backend": "iptables", "runtimeConfig": map[string]any{"portMappings": []any{mapping}}}
	})
	w.variant = variant
	w.multiply(t, s.pods)
	return w
}

func hostPort(pod int) int { return 20000 + pod }

// bridge comes twice, without and with ipMasq: the difference is what masquerading costs.
func bridge(t *testing.T, variant string, s scene) []*way {
	t.Helper()
	h := beside(t, variant, s)
	off := newWay(t, "", reference(t, "bridge"), h, bridgeEntry(false))
	on := newWay(t, "bridge: the share of ipMasq, iptables-"+variant, reference(t, "bridge"), h, bridgeEntry(true))
	off.main, on.main = true, true
	on.less, on.variant = off, variant
	on.multiply(t, s.pods)
	return []*way{off, on}
}

func bridgeEntry(masq bool) func(int) map[string]any {
	return func(int) map[string]any {
		return map[string]any{
			"bridge": "cni0", "isGateway": true, "ipMasq": masq, "ipMasqBackend": "iptables",
			"ipam": map[string]any{"type": "host-local", "subnet": "10.244.0.0/16"},
		}
	}
}
