// Package nftables keeps the desired state in `table inet ip-masq-agent`, over netlink: pod addresses in a hash set,
// destinations folded into an interval set, so that a connection costs the same for one pod and for a thousand, and nearly
// the same for ten prefixes and for ten thousand. With egress groups a map takes the place of the set.
//
// It starts no process, and it touches nothing outside its table; what stands inside is its own, whoever put it there. It
// never fills an interval set in the transaction that puts it to use, because kernels that publish the set's lookup array
// after the switch of generations then answer "no match" for a while. It never deletes by address: an element goes only in a
// transaction that the kernel refuses if anything changed since the element's owner was read.
package nftables

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Backend has no state but how it works: every call borrows a socket in the network namespace of its thread and gives it back. Closing one
// waits for one RCU grace period (8 to 14 ms, no CPU) after something was deleted.
type Backend struct {
	changes changes
	limit   int // of ranges that are counted
	// keepCounts is carryCounts, or nil.
	keepCounts func(c *nfnl.Conn, t target, got *reading) (done func(), err error)
}

var (
	_ backend.Backend      = (*Backend)(nil)
	_ backend.Generational = (*Backend)(nil)
)

// New returns the backend. The kernel is first asked when something is to be done.
func New() *Backend { return NewWith(changesOf(kernelRelease())) }

// NewWith returns the backend with a given way to change destinations, whatever the kernel is.
func NewWith(c changes) *Backend { return &Backend{changes: c, limit: countLimitOf(kernelRelease())} }

// KeepCounts lets new ranges count on where former ones of the same prefix came to.
func (b *Backend) KeepCounts() { b.keepCounts = carryCounts }

// Kind returns NFTables.
func (b *Backend) Kind() backend.Kind { return backend.NFTables }

// Generation returns the number that every transaction on the ruleset of the network namespace changes, whoever makes it.
// What is read after it is not older than the number says.
func (b *Backend) Generation(ctx context.Context) (generation uint32, err error) {
	err = session(ctx, func(c *nfnl.Conn) (err error) {
		generation, err = c.Settled()
		return err
	})
	return generation, err
}

// session opens a socket for one verb and classifies what goes wrong.
func session(ctx context.Context, do func(c *nfnl.Conn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := nfnl.Borrow(unix.NFPROTO_INET)
	if err != nil {
		return classify(err)
	}
	if err = absent(c.Exists()); err == nil {
		err = owned(c, do(c))
	}
	c.Return(err)
	return classify(err)
}

// transaction is session for what begins with a transaction, whose refusal tells as well that the kernel has no nf_tables.
func transaction(ctx context.Context, do func(c *nfnl.Conn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := nfnl.Borrow(unix.NFPROTO_INET)
	if err != nil {
		return classify(err)
	}
	err = owned(c, do(c))
	c.Return(err)
	return classify(err)
}

// owned explains a refusal: a table with the owner flag is its process's, and goes with it (Linux 5.12).
func owned(c *nfnl.Conn, err error) error {
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	if flags, found, lookErr := c.Table(tableName); lookErr == nil && found && flags&tableOwner != 0 {
		return fmt.Errorf("%w: table inet %s belongs to a running process of other software, which made it with the owner flag; stop that process: %w",
			backend.ErrBusy, tableName, err)
	}
	return err
}

// lacksTables reports whether the kernel has no nf_tables at all, and so holds nothing.
func lacksTables(err error) bool {
	return isAny(err, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, unix.EINVAL)
}

// absent recognises a kernel without nf_tables: nfnetlink calls every request for it invalid.
func absent(err error) error {
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("%w: the kernel has no nf_tables: %w", backend.ErrUnavailable, err)
	}
	return err
}

// The names of the table and of the chain that packets meet first.
const (
	tableName = "ip-masq-agent"
	baseChain = "postrouting"
)

// families are both families, in the order of their rules.
var families = []policy.Family{policy.IPv4, policy.IPv6}
