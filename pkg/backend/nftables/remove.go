package nftables

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Remove takes everything of a family out, and the table with the last of them. Where the traffic has already been led to a
// chain of another name, only the chain of this one is removed.
func (b *Backend) Remove(ctx context.Context, s policy.Settings, family policy.Family) error {
	err := session(ctx, func(c *nfnl.Conn) error {
		return again(ctx, func() error {
			got, err := read(ctx, c)
			if err != nil {
				return err
			}
			return vanished(c.Commit(planRemove(s, family, got)))
		})
	})
	if err != nil {
		return fmt.Errorf("remove %s rules: %w", family, err)
	}
	return nil
}

// Chains lists where the base chain leads to.
func (b *Backend) Chains(ctx context.Context, family policy.Family) (chains []string, err error) {
	err = session(ctx, func(c *nfnl.Conn) error {
		rules, err := ownRules(ctx, c)
		for _, r := range rules[baseChain] {
			to := nfnl.Target(r)
			if f, ok := familyOf(r); to != "" && ok && f == family && !slices.Contains(chains, to) {
				chains = append(chains, to)
			}
		}
		return err
	})
	if err != nil && !lacksTables(err) {
		return nil, fmt.Errorf("read the %s root rules: %w", family, err)
	}
	return chains, nil
}

// RemoveAll deletes the table, whatever is in it, and the tables of probes that were killed. The names of chains do not matter.
func (b *Backend) RemoveAll(ctx context.Context, _ ...string) error {
	err := session(ctx, func(c *nfnl.Conn) error {
		return again(ctx, func() error {
			names, err := c.Tables()
			if err != nil {
				return err
			}
			batch := nfnl.NewBatch()
			for _, name := range names {
				if name == tableName || isProbeTable(name) {
					batch.DeleteTable(name)
				}
			}
			return vanished(c.Commit(batch))
		})
	})
	if err != nil && !lacksTables(err) {
		return fmt.Errorf("remove table %s: %w", tableName, err)
	}
	return nil
}

// vanished turns the answer that an object is not there, although it was just read, into one that is worth another attempt.
// Other software may be faster, and the table of a process that ends goes without a new generation (nft_rcv_nl_event).
func vanished(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%w: %w", nfnl.ErrInterrupted, err)
	}
	return err
}
