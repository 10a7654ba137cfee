package node

import (
	"context"
	"os"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
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
	runtime    string
	result     Result
}

// unchanged reports whether the last Sync still holds. It starts no process, and costs one netlink message and one stat per
// attachment.
func (n *Node) unchanged(ctx context.Context, p policy.Policy) bool {
	last := &n.last
	if !last.valid || !n.policyThere() || !last.policy.Equal(p) || !last.recordsAt.Equal(n.recordsChanged()) || last.runtime != n.runtimeStamp() {
		return false
	}
	b, decision, ok := n.current()
	if !ok || decision != last.decision {
		return false
	}
	for _, a := range last.records {
		if a.NetNS.Gone() {
			return false
		}
	}
	generation, ok := generationOf(ctx, b)
	return ok && generation == last.generation
}

// remember keeps what a Sync found, if it wrote nothing and the generation was read before the rules were: what it wrote, or
// what others wrote meanwhile, makes the next Sync read again.
func (n *Node) remember(seen steady, result Result) {
	n.last = steady{}
	if seen.valid && !result.Changed {
		seen.result = result
		n.last = seen
	}
}

// glance takes down everything a Sync depends on, before it reads the rules.
func (n *Node) glance(ctx context.Context, p policy.Policy) steady {
	b, decision, ok := n.current()
	if !ok {
		return steady{}
	}
	seen := steady{policy: p, decision: decision, recordsAt: n.recordsChanged(), runtime: n.runtimeStamp()}
	var err error
	if seen.records, err = n.records.List(); err != nil {
		return steady{}
	}
	seen.generation, seen.valid = generationOf(ctx, b)
	return seen
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
func (n *Node) recordsChanged() time.Time {
	info, err := os.Stat(n.records.Dir)
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
