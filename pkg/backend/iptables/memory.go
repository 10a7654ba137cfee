package iptables

import (
	"hash/maphash"
	"sync"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// memory keeps what iptables printed for what the kernel held. As long as the kernel holds the same, iptables would print the
// same, so a chain of twenty thousand rules is listed once, and not again whenever anything else changes.
type memory struct {
	mu    sync.Mutex
	lists map[place]listing
}

// place is a chain, or for iptables-legacy a table, which the kernel gives away as a whole.
type place struct {
	kind   backend.Kind
	family policy.Family
	chain  string
}

type listing struct {
	content content
	chains  chains
}

// remembered is shared by all backends of the process: callers open one whenever they need it. It holds what was printed for a
// content, wherever that was read, so it needs to know of no network namespace.
var remembered memory

// recall returns the lists for a content. They are not changed once they are made.
func (m *memory) recall(at place, is content) (chains, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	found, ok := m.lists[at]
	return found.chains, ok && found.content == is
}

func (m *memory) keep(at place, is content, printed chains) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lists == nil {
		m.lists = map[place]listing{}
	}
	m.lists[at] = listing{is, printed}
}

// content stands for what rules say.
type content struct {
	sum   uint64
	count int
}

var seed = maphash.MakeSeed()

// contentOf sums up rules of nf_tables, in their order.
func contentOf(rules [][]byte) content {
	var h maphash.Hash
	h.SetSeed(seed)
	var d []byte
	for _, raw := range rules {
		d = nfnl.AppendContent(d[:0], raw)
		_, _ = h.Write(d)
	}
	return content{h.Sum64(), len(rules)}
}

// contentOfBytes sums up a whole table.
func contentOfBytes(d []byte) content { return content{maphash.Bytes(seed, d), len(d)} }

func (m *memory) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lists = nil
}
