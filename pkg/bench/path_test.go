package bench

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// path is one way to masquerade, on a host of its own, and what its connections cost turn by turn.
type path struct {
	name string
	kind backend.Kind // empty: not ours
	*host
	*injector
	size  int       // connections per turn
	costs []float64 // microseconds
}

// newPath makes a host for the cell; prepare puts the rules in place.
func newPath(t testing.TB, name string, h *host, c cell) *path {
	t.Helper()
	p := &path{name: name, host: h, injector: newInjector(t, h.Node, c.pods)}
	p.size = 50
	p.check(t)
	return p
}

// ourPath has what the agent writes.
func ourPath(t testing.TB, kind backend.Kind, c cell) *path {
	t.Helper()
	h := newAgent(t, kind, c.pods)
	h.sync(t, kind, policyOf(c.prefixes, 1))
	p := newPath(t, "ours, "+string(kind), h, c)
	p.kind = kind
	return p
}

// oldPath has what the Kubernetes agent writes: it does not know pods.
func oldPath(t testing.TB, variant string, c cell) *path {
	t.Helper()
	h := newHost(t, variant)
	installOld(t, h, policyOf(c.prefixes, 1))
	return newPath(t, "old chain, iptables-"+variant, h, c)
}

func installOld(t testing.TB, h *host, p policy.Policy) {
	t.Helper()
	h.restore(t, oldChain(p))
	h.exec(t, Command{Args: append([]string{"iptables", "-w", "-t", "nat", "-A"}, oldRoot...)})
}

func floorPath(t testing.TB, c cell) *path {
	t.Helper()
	h := newHost(t, "nft")
	h.exec(t, Command{Args: []string{"nft", "-f", "-"}, Stdin: floorTable})
	return newPath(t, "floor: one MASQUERADE", h, c)
}

// turnTime is how long one batch should take: long enough for the clock, short enough that all of a turn see one machine.
const turnTime = 10 * time.Millisecond

// calibrate chooses the number of connections per turn.
func (p *path) calibrate(t testing.TB) {
	t.Helper()
	each := p.measure(t)
	p.size = min(max(int(turnTime/max(each, time.Microsecond)), 50), maxBatch)
	p.measure(t)
	p.costs = nil
}

// measure opens one batch of connections, and counts what conntrack knows of them: a packet that was lost on the way, or
// that the node took for a known connection, would make the path look cheap.
func (p *path) measure(t testing.TB) time.Duration {
	t.Helper()
	before := p.connections(t)
	each, err := p.batch(p.size)
	if err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
	if made := p.connections(t) - before; made < p.size {
		t.Fatalf("%s: %d packets made %d connections", p.name, p.size, made)
	}
	p.costs = append(p.costs, float64(each)/float64(time.Microsecond))
	return each
}

// forget empties the connection table.
func (p *path) forget(t testing.TB) {
	t.Helper()
	p.exec(t, Command{Args: []string{"conntrack", "-F"}})
}

// connections reads how many there are.
func (p *path) connections(t testing.TB) (n int) {
	t.Helper()
	err := p.Do(func() error {
		data, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		if err == nil {
			_, err = fmt.Sscan(string(data), &n)
		}
		return err
	})
	if err != nil {
		t.Fatalf("count connections: %v", err)
	}
	return n
}

// check opens one batch and looks at every connection's address outside.
func (p *path) check(t testing.TB) {
	t.Helper()
	p.forget(t)
	p.measure(t)
	entries := strings.Split(strings.TrimSpace(p.exec(t, Command{Args: []string{"conntrack", "-L", "-p", "udp"}}).Stdout), "\n")
	masqueraded := 0
	for _, entry := range entries {
		// The second dst= is where the answer would go.
		if reply := strings.LastIndex(entry, " dst="); reply >= 0 && strings.HasPrefix(entry[reply:], " dst=192.0.2.") {
			masqueraded++
		}
	}
	if masqueraded != p.size {
		t.Fatalf("%s: %d of %d connections were masqueraded:\n%s", p.name, masqueraded, p.size, entries[0])
	}
	p.forget(t)
	p.costs = nil
}
