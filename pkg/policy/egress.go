package policy

import (
	"net/netip"
	"slices"
	"sort"
)

// Egress gives the connections to some destinations a source address of the node's that was chosen for them. It is written for a
// whole cluster: of the prefixes in SourceAddresses a node takes those addresses that it has.
type Egress struct {
	Destinations    []netip.Prefix `json:"destinations"`
	SourceAddresses []netip.Prefix `json:"sourceAddresses"`
	WhenMissing     WhenMissing    `json:"whenMissing,omitempty"`
}

// WhenMissing says what happens on a node that has none of the source addresses.
type WhenMissing string

// The two ways. The empty value means MissingMasquerade.
const (
	MissingMasquerade WhenMissing = "masquerade"
	MissingDrop       WhenMissing = "drop"
)

// Verdict is what a node without the source addresses does.
func (w WhenMissing) Verdict() Verdict {
	if w == MissingDrop {
		return Drop
	}
	return Masquerade
}

// Become says in a word what happens to connections on a node without the source addresses.
func (w WhenMissing) Become() string {
	if w.Verdict() == Drop {
		return "dropped"
	}
	return "masqueraded"
}

// Equal reports whether both say the same in the same order.
func (e Egress) Equal(o Egress) bool {
	return slices.Equal(e.Destinations, o.Destinations) && slices.Equal(e.SourceAddresses, o.SourceAddresses) &&
		e.WhenMissing.Verdict() == o.WhenMissing.Verdict()
}

// SourceAddresses lists the prefixes that egress groups name, of both families.
func (p Policy) SourceAddresses() (all []netip.Prefix) {
	for _, e := range p.Egress {
		all = append(all, e.SourceAddresses...)
	}
	return all
}

// MaxEgress is how many groups a policy has at most: iptables allows 28 characters for the name of a chain, and "-E999" is appended
// to the shared chain's.
const MaxEgress = 999

// MaxPool is how many source addresses of one family a pool has: a node that has more of them leaves out the highest.
const MaxPool = 16

// Pool picks those of a node's addresses that lie in the prefixes, of one family, sorted and each once.
func Pool(f Family, prefixes []netip.Prefix, node []netip.Addr) []netip.Addr {
	var pool []netip.Addr
	for _, address := range node {
		in := func(p netip.Prefix) bool { return p.Contains(address) }
		if FamilyOf(address) == f && slices.ContainsFunc(prefixes, in) {
			pool = append(pool, address)
		}
	}
	SortAddresses(pool)
	pool = slices.Compact(pool)
	return pool[:min(len(pool), MaxPool)]
}

// SortAddresses sorts addresses in place.
func SortAddresses(addresses []netip.Addr) { sort.Sort(byAddress(addresses)) }

type byAddress []netip.Addr // as byPlace

func (b byAddress) Len() int           { return len(b) }
func (b byAddress) Swap(i, j int)      { b[i], b[j] = b[j], b[i] }
func (b byAddress) Less(i, j int) bool { return b[i].Less(b[j]) }

// Buckets is into how many parts a pool divides its sources, by the last bits of their addresses: a power of two, and at least
// four times the pool where that is none, so that no address gets half as many sources again as another.
//
// The last bits do for a hash what every backend can compute without a further module of the kernel: addresses of pods are given
// one after the other, so these bits spread them evenly, and a person can tell which address a pod gets.
func Buckets(pool int) int {
	n := 1
	for n < pool {
		n *= 2
	}
	if n != pool {
		n *= 4
	}
	return n
}

// Choose returns the address of a pool that a source keeps; the pool is not empty, sorted, and of the source's family.
func Choose(pool []netip.Addr, source netip.Addr) netip.Addr {
	bytes := source.AsSlice()
	bucket := int(bytes[len(bytes)-1]) % Buckets(len(pool)) // at most 64, so the last byte has the bits
	return pool[bucket%len(pool)]
}
