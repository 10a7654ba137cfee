package nftables

import (
	"maps"
	"sync"

	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
)

// memory is the last reading of this process. It spares reading ten thousand prefixes again, most of the cost of changing one
// of them: as long as the generation is the same in the same network namespace, all of the reading is still true, and
// afterwards those sets of intervals are that no notification of the kernel named.
type memory struct {
	mu         sync.Mutex
	namespace  uint64
	generation uint32
	got        *reading
	sets       map[string]set // of intervals, that nobody changed since they were read
	readings   int
	journal    *nfnl.Journal
}

// remembered is shared by all backends of the process: callers open one whenever they need it.
var remembered memory

// recall returns the reading of that generation, nil where there is none. Readings are not changed once they are made.
func (m *memory) recall(c *nfnl.Conn, generation uint32) *reading {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.enter(c) && m.generation == generation {
		return m.got
	}
	return nil
}

// unchanged returns the sets of intervals that need not be read again, up to a generation that Settled returned before. The
// journal is opened for the second reading: a plugin, which lives for one, needs none.
func (m *memory) unchanged(c *nfnl.Conn) map[string]set {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.enter(c) {
		return nil
	}
	m.takeIn()
	if m.readings++; m.journal == nil && m.readings > 1 {
		m.journal, _ = nfnl.Listen() // without it every reading is a full one
	}
	return maps.Clone(m.sets)
}

// takeIn drops the sets that the kernel's notifications name.
func (m *memory) takeIn() {
	if m.journal == nil {
		return
	}
	complete := m.journal.Changes(func(table, name string) {
		switch {
		case table != tableName:
		case name == "":
			clear(m.sets)
		default:
			delete(m.sets, name)
		}
	})
	if !complete {
		clear(m.sets)
	}
}

// enter drops what is known of another network namespace. Where the kernel cannot tell (before Linux 5.14) nothing is
// remembered.
func (m *memory) enter(c *nfnl.Conn) bool {
	namespace, ok := c.Namespace()
	if ok && namespace == m.namespace {
		return true
	}
	if m.journal != nil {
		_ = m.journal.Close()
	}
	m.namespace, m.got, m.sets, m.readings, m.journal = namespace, nil, nil, 0, nil
	return ok
}

// keep leaves out a table that belongs to a process: it goes with that, and the generation does not tell (nft_rcv_nl_event).
func (m *memory) keep(c *nfnl.Conn, generation uint32, got *reading) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.enter(c) || got.flags&tableOwner != 0 {
		m.got, m.sets = nil, nil
		return
	}
	m.generation, m.got, m.sets = generation, got, map[string]set{}
	if m.journal == nil {
		return
	}
	for name, s := range got.sets {
		if s.Interval {
			m.sets[name] = s
		}
	}
}

// Forget drops the reading that this process remembers.
func (b *Backend) Forget() { remembered.forget() }

func (m *memory) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.got, m.sets = nil, nil
}

// keepWritten remembers what the kernel holds after transactions: exactly the target, if theirs were the only ones since the
// reading that they were planned from. Every transaction adds one to the generation, which is read after the notifications
// are taken in: so those are of these transactions alone.
func (m *memory) keepWritten(c *nfnl.Conn, former *reading, transactions uint32, t target, rules []nfnl.Rule) {
	m.mu.Lock()
	if m.enter(c) {
		m.takeIn()
	}
	m.mu.Unlock()
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
		s.begin = nil
		got.sets[s.Name] = s
	}
	m.keep(c, generation, got)
}
