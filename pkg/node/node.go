// Package node holds what plugin and agent share on one node: where its files are, the lock, the record of the chosen
// backend and chain, the last good policy, and the few operations on them. Every way to change the kernel goes through here.
//
// It refuses to read the agent's configuration file and to know CNI: it is given policies and attachments. It never blocks
// beyond its caller's context, and it never takes an error as a reason to leave the kernel worse than it was.
package node

import (
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/registry"
	"github.com/ip-masq/ip-masq-cni/pkg/paths"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// Node is one node's state. The zero value is not usable: use New.
type Node struct {
	stateDir string
	dataDir  string
	host     registry.Host
	choice   registry.Choice
	owner    bool
	defaults policy.Settings
	records  attachment.Reader
	optOuts  attachment.Reader
	runtime  Runtime
	// runtimeKnown are the attachments that the runtime knew at the last Sync that asked it.
	runtimeKnown map[attachment.ID]bool
	cacheFile    func(dir string, owner attachment.Owner) string
	flows        func() FlowChange
	diff         Diff
	keepCounts   func(backend.Backend)
	changingMu   sync.Mutex // EndFlows runs beside a Sync
	changing     FlowChange
	// governedBefore are the pods that were on record at the last good Sync.
	governedBefore map[ruleset.Pod]bool
	// addressesBefore are the node's addresses that the policy could give to connections by then, nil before the first Sync of this process.
	addressesBefore *[]netip.Addr
	refusals        refusals
	persisted       persistedPolicy
	tookOver        bool
	seen            map[policy.Family][]place // what a Sync found before it wrote; nil where it did not look
	known           recordList
	assumed         *assumedRecords // what Records returns while a Sync has not written all of them; nil otherwise
	isAlone         bool            // it has the exclusive lock, for a Sync
	last            steady
	generation      sinceWhen
	warned          string // the last message of warnOnce
	log             *slog.Logger
}

// Diff is backend.Backend.Diff.
type Diff func(b backend.Backend, got backend.Observed, want ruleset.State) []backend.Drift

// Options say who is asking and where the node's files are.
type Options struct {
	StateDir string
	DataDir  string
	// Host is where the host's root is mounted, for an agent in a container; empty for our own.
	Host   registry.Host
	Choice registry.Choice
	// Owner marks the agent: only its explicit choice switches a backend that is in use.
	Owner bool
	// Defaults are the settings where no policy was ever persisted.
	Defaults policy.Settings
	// Runtime finds pods that are not on record, and Flows begins to look for connections whose verdict changes. Both are the agent's; nil
	// does without.
	Runtime Runtime
	Flows   func() FlowChange
	// Diff lists what a write is about to change, object by object. It is the agent's; nil lists nothing, and leaves all that
	// there is to say about it out of the program.
	Diff Diff
	// KeepCounts prepares a backend for a write (backend.KeepCounts). It is the agent's, too.
	KeepCounts func(backend.Backend)
	// CacheFile names the file in which the runtime's cache in a directory keeps an attachment. It is the plugin's; nil makes no
	// marks of deleted attachments.
	CacheFile func(dir string, owner attachment.Owner) string
	// Log may be nil.
	Log *slog.Logger
}

// New returns the node. It touches nothing.
func New(o Options) *Node {
	n := &Node{
		stateDir: o.StateDir, dataDir: o.DataDir,
		host: o.Host, choice: o.Choice, owner: o.Owner, defaults: o.Defaults,
		runtime: o.Runtime, flows: o.Flows, diff: o.Diff, keepCounts: o.KeepCounts, cacheFile: o.CacheFile, log: o.Log,
	}
	if n.stateDir == "" {
		n.stateDir = paths.StateDir
	}
	if n.dataDir == "" {
		n.dataDir = paths.DataDir
	}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	if n.diff == nil {
		n.diff = func(backend.Backend, backend.Observed, ruleset.State) []backend.Drift { return nil }
	}
	n.records.Dir = RecordsDir(n.stateDir)
	n.optOuts.Dir = filepath.Join(n.stateDir, optOutsDir)
	return n
}

// socketFile is the daemon's socket (package socket, which the plugin does not link). A killed daemon leaves it.
const socketFile = "agent.sock"

// Records returns the attachments on record, which are read again only when their directory changed. A Sync asks several times,
// and most find nothing new. While this process has the exclusive lock, nobody else writes records (see alone).
func (n *Node) Records() ([]attachment.Attachment, error) {
	if n.assumed != nil {
		return n.assumed.records, n.assumed.err
	}
	changed := n.recordsChanged()
	if n.known.valid && (n.isAlone || n.known.at.Equal(changed)) {
		return n.known.records, nil
	}
	records, err := n.records.List()
	n.known = recordList{valid: err == nil && (n.isAlone || time.Since(changed) > attachment.RacyTime), at: changed, records: records}
	return records, err
}

// alone is called with the exclusive lock, and the function that it returns before the lock ends: in between, what is known of the
// records stays true until this process writes one, after which it calls forgetRecords.
func (n *Node) alone() (ended func()) {
	n.known.valid = n.known.valid && n.known.at.Equal(n.recordsChanged())
	n.isAlone = true
	return func() {
		n.isAlone = false
		n.known.valid = n.known.valid && time.Since(n.known.at) > attachment.RacyTime
	}
}

func (n *Node) forgetRecords() { n.known = recordList{} }

// setAsideUnreadable renames records that say nothing about an attachment, so that neither GC nor a Sync fails for them again.
// It needs the exclusive lock.
func (n *Node) setAsideUnreadable() {
	if _, err := n.Records(); !errors.Is(err, attachment.ErrUnreadable) {
		return
	}
	sentences, err := n.records.SetAside()
	n.forgetRecords()
	for _, sentence := range sentences {
		n.log.Error("a record was set aside; the pod keeps its rules, and the agent takes it back where the runtime knows it", "record", sentence)
	}
	if err != nil {
		n.log.Error("could not set every unreadable record aside", "error", err)
	}
}

// assumedRecords are the records with those that are about to be written, and what is wrong with the former.
type assumedRecords struct {
	records []attachment.Attachment
	err     error
}

// recordList is the records as they were at a time.
type recordList struct {
	valid   bool
	at      time.Time
	records []attachment.Attachment
}

// RecordsDir is where the records of attachments are.
func RecordsDir(stateDir string) string { return filepath.Join(stateDir, "attachments") }
