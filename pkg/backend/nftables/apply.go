package nftables

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// Apply sends the difference. Where other software changed our table since it was read, the kernel refuses the transaction as a
// whole, and the table is read again. An Observed without a reading means that nothing is there: then the table is created,
// which fails rather than overwrites.
func (b *Backend) Apply(ctx context.Context, got backend.Observed, want ruleset.State) (changed bool, err error) {
	now, observed := got.Raw.(*reading)
	if !observed {
		now = &reading{}
	}
	err = session(ctx, func(c *nfnl.Conn) error {
		for attempt := 1; ; attempt++ {
			wrote, err := b.applyOnce(c, now, want)
			changed = changed || wrote
			if !outdated(err) || !observed || attempt == applyAttempts || ctx.Err() != nil {
				return unsupported(err)
			}
			remembered.forget() // a table can vanish without a new generation
			if now, err = read(ctx, c); err != nil {
				return err
			}
		}
	})
	if err != nil {
		return changed, fmt.Errorf("apply rules: %w", err)
	}
	return changed, nil
}

// applyAttempts is how often other software may change our table while we do.
const applyAttempts = 5

// unsupported explains a refusal that reading again did not mend: a kernel without the module for an expression or a type of
// chain says that there is no such thing.
func unsupported(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%w: the kernel lacks a part of nf_tables: %w", backend.ErrUnavailable, err)
	}
	return err
}

// applyOnce reports whether it wrote.
func (b *Backend) applyOnce(c *nfnl.Conn, now *reading, want ruleset.State) (bool, error) {
	t := aim(want, now, b.changes, b.limit)
	counted := func() {}
	if b.keepCounts != nil {
		var err error
		if counted, err = b.keepCounts(c, t, now); err != nil {
			return false, err
		}
	}
	defer counted()
	p := plans(t, now)
	transactions := uint32(0)
	if !p.fill.Empty() {
		if err := c.Commit(p.fill); err != nil {
			return false, err
		}
		transactions++
	}
	if !p.use.Empty() {
		if err := p.countOn(c, t); err != nil {
			return transactions > 0, err
		}
		if err := c.Commit(p.use); err != nil {
			return transactions > 0, err
		}
		transactions++
	}
	counted()
	if !p.clean.Empty() {
		letPacketsEnd()
		if err := c.Commit(p.clean); err != nil {
			return transactions > 0, err
		}
		transactions++
	}
	if transactions == 0 {
		return false, nil
	}
	rules, err := confirm(c, tableName, t)
	if err == nil {
		remembered.keepWritten(c, now, transactions, t, rules)
	}
	return true, err
}

// letPacketsEnd waits until no packet is under way that met the rules or the ranges from before the last transaction. Such a packet
// may still look into a map that clean makes empty, or go to a chain whose rules it deletes: measured on 5.10, one flow in 60,000.
// membarrier(2) waits for the grace period of RCU, which is what packets are handled under; where it is refused (nohz_full, a
// filter of system calls), a pause is longer than any of them takes.
func letPacketsEnd() {
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0); errno != 0 {
		time.Sleep(packetTime)
	}
}

const (
	membarrierGlobal = 1 // MEMBARRIER_CMD_GLOBAL
	packetTime       = 50 * time.Millisecond
)

// countOn plans the rules anew with the counters as they are now: filling a set took a while, and the reading may be older.
func (p *plan) countOn(c *nfnl.Conn, t target) error {
	rules, err := c.Rules(tableName)
	if uninterrupted(err) != nil || len(rules) == 0 {
		return uninterrupted(err)
	}
	fresh := *p.filled
	fresh.rules = byChain(rules)
	p.use = planUse(t, &fresh)
	return nil
}

// errDropped is a write that succeeded and did not last.
var errDropped = errors.New("the kernel does not hold the rules that were just written")

// confirm reads the rules back. Elements need no such proof: the kernel acknowledged each of them.
func confirm(c *nfnl.Conn, table string, t target) ([]nfnl.Rule, error) {
	rules, err := c.Rules(table)
	if uninterrupted(err) != nil {
		return nil, err
	}
	got := byChain(rules)
	for _, want := range t.chains {
		b := nfnl.NewBatch()
		planRules(b, want.rules, got[want.Name])
		if !b.Empty() {
			return nil, fmt.Errorf("%w: %w: %s", backend.ErrUnavailable, errDropped, b.Steps()[0])
		}
	}
	return rules, nil
}
