// Package iptables keeps the desired state in table nat, by iptables-restore of either variant: nft, which speaks to
// nf_tables, or legacy, which speaks to ip_tables. Both are the same code.
//
// It never lists a whole table, because one native nftables rule makes that fail and five thousand chains make it slow. It
// never changes a rule of other software, except in the chains that are managed by ip-masq, whose whole content is. It reads no
// English: what a failure means follows from the exit status alone, and whether a chain is there is asked of the kernel.
//
// Writing is one iptables-restore, which is one transaction, and so is reading the chains that it writes: where a pod starts, a
// process more is a millisecond or two more (go-iptables starts one to learn the version, and one for each chain). Counters, the
// chains of other software, the search for features and removal are go-iptables' calls. Where a process can be spared, the kernel
// is asked directly (kernel_nft.go, kernel_legacy.go).
package iptables

import (
	"context"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Backend drives one variant of iptables.
type Backend struct {
	kind backend.Kind
	host Host
}

var (
	_ backend.Backend      = (*Backend)(nil)
	_ backend.Generational = (*Backend)(nil)
)

// New returns the backend for kind, IPTablesNFT or IPTablesLegacy. The host's programs are looked for when they are needed.
func New(kind backend.Kind, host Host) *Backend { return &Backend{kind: kind, host: host} }

// Kind returns the variant.
func (b *Backend) Kind() backend.Kind { return b.kind }

// isNFT reports whether the rules are in nf_tables, where each has a handle and every change is counted.
func (b *Backend) isNFT() bool { return b.kind == backend.IPTablesNFT }

// restore runs one script: a transaction, and then what it reads.
func (b *Backend) restore(ctx context.Context, family policy.Family, sc *script) (string, error) {
	found, err := b.host.find(b.kind, family)
	if err != nil {
		return "", err
	}
	out, err := b.host.run(ctx, found.restore, append([]string{"--noflush"}, b.wait(ctx)...), sc.String())
	return out, classify(ctx, err)
}
