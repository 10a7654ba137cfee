// Package backend defines what a backend is: the one interface between the desired state and a kind of kernel rules, and the
// errors that its callers tell apart.
//
// It holds no rule and lists no backend: the siblings below it implement the interface, package registry lists them, and
// package backendtest holds every one of them to the same behaviour.
package backend

import (
	"context"
	"net/netip"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// Kind names a backend, in files and flags.
type Kind string

// The kinds of kernel rules.
const (
	IPTablesNFT    Kind = "iptables-nft"
	IPTablesLegacy Kind = "iptables-legacy"
	NFTables       Kind = "nftables"
)

// Features are what a probe found in one family.
type Features struct {
	// RandomFully: MASQUERADE can pick source ports at random (iptables 1.6.2, Linux 3.13).
	RandomFully bool `json:"randomFully"`
}

// Backend puts the desired state into the kernel. All methods may be called in any process at any time; callers serialise
// Observe with Apply, and both against Attach and Detach, by the node's lock.
type Backend interface {
	Kind() Kind

	// Probe puts a rule of every form that the state may need into a place where no packet meets it, reads it back and
	// removes it. ErrUnavailable: the host or the kernel cannot do it.
	Probe(ctx context.Context, family policy.Family) (Features, error)

	// Observe reads what the kernel holds that ip-masq manages. It never writes.
	Observe(ctx context.Context, s policy.Settings, families ...policy.Family) (Observed, error)

	// Apply makes the kernel equal want, one transaction per family, given what Observe just read; it writes nothing where
	// both are equal. Foreign objects are never touched. It reports whether it wrote, after reading back what it wrote.
	Apply(ctx context.Context, got Observed, want ruleset.State) (changed bool, err error)

	// Attach adds the pods of want, and its addresses that opted out where the node's traffic is governed, provided that the rest of
	// want stands; ErrIncomplete if not, and then Observe and Apply mend it. One transaction per family of want. With addresses that
	// opted out, callers hold the node's lock alone.
	Attach(ctx context.Context, want ruleset.State) error

	// Detach removes the rules of one owner in the given families, and no other's, whatever their address. known, if any,
	// are the pods that its record listed; the record itself is deleted before. An address that another attachment on record
	// has stays covered. Nothing there is no error.
	Detach(ctx context.Context, s policy.Settings, families []policy.Family, id attachment.ID, known []ruleset.Pod, onRecord OnRecord) error

	// Release takes addresses that opted out out of the rules, in whatever family; those that are not there are no error. Callers hold the
	// node's lock alone, and have looked who else on record has an address.
	Release(ctx context.Context, s policy.Settings, addresses []netip.Addr) error

	// Verify checks, without writing, that the rest of want stands and that its pods, and its addresses that opted out, are there. It
	// fails with a *Missing.
	Verify(ctx context.Context, want ruleset.State) error

	// Chain reads the state of the shared chain alone: one process at most, nothing is written.
	Chain(ctx context.Context, s policy.Settings, family policy.Family) (ChainState, error)

	// Diff lists where the kernel differs from want, object by object; empty exactly where Apply would write nothing.
	Diff(got Observed, want ruleset.State) []Drift

	// Counters reads the counters of the shared chain's rules, in their order.
	Counters(ctx context.Context, s policy.Settings, family policy.Family) ([]Counter, error)

	// Traffic reads the same counters cheaply, for who asks every few seconds: it starts no process, and needs no lock. What prefixes had
	// of it is told as well if that is asked for.
	Traffic(ctx context.Context, s policy.Settings, byPrefix bool, families ...policy.Family) ([]Traffic, error)

	// Remove takes everything managed by ip-masq out of one family. What other software's rules keep alive is a *Kept.
	Remove(ctx context.Context, s policy.Settings, family policy.Family) error

	// Chains lists the shared chains that root rules managed by ip-masq lead to, whatever they are called. It reads only.
	Chains(ctx context.Context, family policy.Family) ([]string, error)

	// RemoveAll takes everything managed by ip-masq out of both families, for a node whose record of what was chosen is lost:
	// the given shared chains, those that Chains finds, and what a killed probe left. *Kept as in Remove.
	RemoveAll(ctx context.Context, chains ...string) error
}

// OnRecord returns the pods of attachments on record that have an address, as they are at the moment of the call.
type OnRecord func(address netip.Addr) []ruleset.Pod

// Generational is a backend whose kernel side counts its changes: as long as the generation is the same, nobody changed
// anything, and a reading is still true.
type Generational interface {
	Generation(ctx context.Context) (uint32, error)
	// Forget makes the next Observe read the kernel, whatever this process remembers of an earlier reading.
	Forget()
}

// KeepCounts lets what a backend counts by prefix go on through every Apply that replaces it, as far as the backend can do that. A program
// that applies once has nothing to keep, and does without the code.
func KeepCounts(b Backend) {
	if counting, can := b.(interface{ KeepCounts() }); can {
		counting.KeepCounts()
	}
}

// ChainState says what is known of the shared chain.
type ChainState string

// The states of the shared chain. An empty chain masquerades nothing, which is why it counts as broken.
const (
	ChainMissing ChainState = "missing"
	ChainEmpty   ChainState = "empty"
	ChainFilled  ChainState = "filled"
)

// Counter is how many packets, the first of their connections, a rule decided about.
type Counter struct {
	Rule    string
	Verdict policy.Verdict // empty for a rule that is not ip-masq's, and for one that counts both families, of which others count each
	Prefix  netip.Prefix   // of the destinations; not valid for a rule that is about more than one prefix, or about all
	Part    bool           // another counter has these packets, too
	Packets uint64
	Bytes   uint64
}

// Observed is a reading of the kernel.
type Observed struct {
	Tables []ObservedTable
	// Raw is the backend's own form of the reading, for its Apply.
	Raw any
}

// ObservedTable is the reading of one family.
type ObservedTable struct {
	Family policy.Family
	Root   int // copies of the root rule; more than one is as wrong as none
	Chain  ChainState
	Pods   []ruleset.Pod
}

// Pods lists the pods of all families.
func (o Observed) Pods() []ruleset.Pod {
	var pods []ruleset.Pod
	for _, table := range o.Tables {
		pods = append(pods, table.Pods...)
	}
	return pods
}
