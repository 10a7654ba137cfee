package nftables

import (
	"sync"

	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
)

// memory is the last reading of this process. It spares reading ten thousand prefixes again, most of the cost of changing one
// of them: as long as the generation is the same in the same network namespace, it is still true.
type memory struct {
	mu         sync.Mutex
	namespace  uint64
	generation uint32
	chain      string
	got        *reading
}

// remembered is shared by all backends of the process: callers open one whenever they need it.
var remembered memory

// recall returns the reading of that generation, nil where there is none. Readings are not changed once they are made.
func (m *memory) recall(c *nfnl.Conn, generation uint32, chain string) *reading {
	m.mu.Lock()
	defer m.mu.Unlock()
	if namespace, ok := c.Namespace(); ok && m.got != nil &&
		m.namespace == namespace && m.generation == generation && m.chain == chain {
		return m.got
	}
	return nil
}

func (m *memory) keep(c *nfnl.Conn, generation uint32, chain string, got *reading) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if namespace, ok := c.Namespace(); ok {
		m.namespace, m.generation, m.chain, m.got = namespace, generation, chain, got
	}
}

func (m *memory) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.got = nil
}

// Forget drops the reading that this process remembers.
func (b *Backend) Forget() { remembered.forget() }

// keepWritten remembers what the kernel holds after transactions: exactly the target, if theirs were the only ones since the
// reading that they were planned from. Every transaction adds one to the generation.
func (m *memory) keepWritten(c *nfnl.Conn, former *reading, transactions uint32, chain string, t target, rules []nfnl.Rule) {
	generation, err := c.Generation()
	if err != nil || former.generation == 0 || generation != former.generation+transactions {
		return
	}
	got := &reading{
		generation: generation, table: true,
		chains: map[string]nfnl.Chain{}, rules: byChain(rules), sets: map[string]set{},
	}
	for _, c := range t.chains {
		got.chains[c.Name] = c.Chain
	}
	for _, s := range t.sets {
		got.sets[s.Name] = s
	}
	m.keep(c, generation, chain, got)
}
