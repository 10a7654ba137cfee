package node

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// steady remembers a Sync that found nothing to write. While the kernel's generation, the policy and the records are the same,
// another one would find the same, so the kernel need not be read.
type steady struct {
	valid      bool
	generation uint32
	policy     policy.Policy
	decision   Decision
	records    []attachment.Attachment
	recordsAt  time.Time
	addresses  []netip.Addr
	optOutsAt  time.Time // zero where opted-out pods are not in the rules
	runtime    string
	namespaces string
	result     Result
	uses       int // how often it stood in for a reading
}

// The limits of what is remembered. The kernel raises the generation an instant before its changes can be seen, so a generation
// that is younger than fresh is not believed, and every fullEvery-th Sync reads in full, whatever is remembered.
const (
	fresh     = 50 * time.Millisecond
	fullEvery = 10
)

// unchanged reports whether the last Sync still holds. It starts no process, and costs one netlink message and a few stat
// calls.
func (n *Node) unchanged(ctx context.Context, p policy.Policy) bool {
	last := &n.last
	if last.uses >= fullEvery-1 {
		n.forget()
	}
	if former := n.readPersisted(); former == nil || !former.Equal(p) {
		return false // another program changed or removed the file
	}
	if !last.valid || !last.policy.Equal(p) || !last.recordsAt.Equal(n.recordsChanged()) || !last.optOutsAt.Equal(n.optOutsChanged(p.Settings)) || last.runtime != n.runtimeStamp() {
		return false
	}
	b, decision, err := n.current()
	if err != nil || !reflect.DeepEqual(decision, last.decision) {
		return false
	}
	if last.namespaces != namespaceStamp(last.records) {
		return false
	}
	if addresses, err := SourceAddresses(p, last.records); err != nil || !slices.Equal(addresses, last.addresses) {
		return false
	}
	generation, ok := generationOf(ctx, b)
	if !ok || generation != last.generation {
		return false
	}
	last.uses++
	return true
}

// forget makes the next Sync read the kernel in full, also where the backend remembers its last reading.
func (n *Node) forget() {
	n.last = steady{}
	if b, _, err := n.current(); err == nil {
		if counted, ok := b.(backend.Generational); ok {
			counted.Forget()
		}
	}
}

// remember keeps what a Sync found, if it wrote nothing and the generation was read before the rules were: what it wrote, or
// what others wrote meanwhile, makes the next Sync read again.
func (n *Node) remember(seen steady, result Result) {
	n.last = steady{}
	if seen.valid && !result.Changed {
		seen.result = Result{Backend: result.Backend, Chain: result.Chain, Pods: result.Pods, Addresses: result.Addresses, Egress: result.Egress}
		n.last = seen
	}
}

// snapshot notes everything a Sync depends on, before it reads the rules.
func (n *Node) snapshot(ctx context.Context, p policy.Policy) steady {
	b, decision, err := n.current()
	if err != nil {
		return steady{}
	}
	seen := steady{policy: p, decision: decision, recordsAt: n.recordsChanged(), optOutsAt: n.optOutsChanged(p.Settings), runtime: n.runtimeStamp()}
	records, err := n.Records()
	if err != nil {
		return steady{}
	}
	if seen.addresses, err = SourceAddresses(p, records); err != nil {
		return steady{}
	}
	seen.records = append(slices.Clone(records), n.Exempt(p.Settings)...)
	seen.namespaces = namespaceStamp(seen.records)
	generation, ok := generationOf(ctx, b)
	seen.generation, seen.valid = generation, ok && n.seenFor(generation) >= fresh
	return seen
}

// seenFor returns for how long the generation has been known.
func (n *Node) seenFor(generation uint32) time.Duration {
	if n.generation.number != generation || n.generation.since.IsZero() {
		n.generation = sinceWhen{generation, time.Now()}
	}
	return time.Since(n.generation.since)
}

// sinceWhen is a generation and when it was first seen.
type sinceWhen struct {
	number uint32
	since  time.Time
}

func generationOf(ctx context.Context, b backend.Backend) (uint32, bool) {
	counted, ok := b.(backend.Generational)
	if !ok {
		return 0, false
	}
	generation, err := counted.Generation(ctx)
	return generation, err == nil
}

// recordsChanged is when the directory of records last had a file added, replaced or removed.
func (n *Node) recordsChanged() time.Time { return changed(n.records.Dir) }

// optOutsChanged is the same for pods that opted out, where the rules name them.
func (n *Node) optOutsChanged(s policy.Settings) time.Time {
	if !ruleset.NeedsOptedOut(s) {
		return time.Time{}
	}
	return changed(n.optOuts.Dir)
}

func changed(dir string) time.Time {
	info, err := os.Stat(dir)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

func (n *Node) runtimeStamp() string {
	if n.runtime == nil {
		return ""
	}
	return n.runtime.Stamp()
}

// namespaceStamp changes when a namespace of an attachment may have gone: it is unmounted by removing its name from a directory.
// For the few that are named by a process (/proc/PID/ns/net) the directory tells nothing, and each is asked.
func namespaceStamp(records []attachment.Attachment) string {
	var b strings.Builder
	seen := map[string]bool{}
	for _, a := range records {
		dir := filepath.Dir(a.NetNS.Path)
		switch {
		case strings.HasPrefix(dir, "/proc/"):
			fmt.Fprintln(&b, a.NetNS.Gone())
		case a.NetNS.Path != "" && !seen[dir]:
			seen[dir] = true
			if info, err := os.Stat(dir); err == nil {
				fmt.Fprintln(&b, dir, info.ModTime().UnixNano())
			}
		}
	}
	return b.String()
}
