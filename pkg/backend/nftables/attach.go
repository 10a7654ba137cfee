package nftables

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// Attach adds the pods' addresses in one transaction and then looks whether the rules stand that make use of them. In this
// order a removal of the rules cannot slip in between check and addition; an address that is in its set without rules does no
// harm, and the Apply that follows expects it there.
func (b *Backend) Attach(ctx context.Context, want ruleset.State) error {
	if len(want.Tables) == 0 {
		return nil
	}
	err := transaction(ctx, func(c *nfnl.Conn) error {
		if err := addPods(ctx, c, want.Tables); err != nil {
			return err
		}
		rules, err := ownRules(ctx, c)
		if err != nil {
			return err
		}
		if missing := firstMissing(want.Settings, want.Tables, rules); missing != nil {
			return fmt.Errorf("%w: %w", backend.ErrIncomplete, missing)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	return nil
}

// addPods expects that no other attachment has the addresses, which costs one round trip, and looks closer where another has.
func addPods(ctx context.Context, c *nfnl.Conn, tables []ruleset.Table) error {
	b := nfnl.NewBatch()
	for _, table := range tables {
		s := setOf(podsSet(table.Family), table.Family)
		b.AddElements(tableName, s.Name, elements(s, claim(table.Pods, nil)), nfnl.Excl)
	}
	err := c.Commit(b)
	if errors.Is(err, unix.EEXIST) {
		err = again(ctx, func() error { return takeOver(c, tables) })
	}
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%w: %w", backend.ErrIncomplete, err)
	}
	return err
}

// takeOver gives the addresses to their new owner and marks them as shared: another attachment has them too, or its DEL is
// still to come. The guard makes sure that nobody changed the elements after they were read. Every element is written, also
// one that is right already: only a change raises the generation, and so stops a DEL that planned to delete the element
// before this attachment was on record.
func takeOver(c *nfnl.Conn, tables []ruleset.Table) error {
	generation, err := c.Settled()
	if err != nil {
		return err
	}
	b := nfnl.NewGuardedBatch(generation)
	for _, table := range tables {
		s := setOf(podsSet(table.Family), table.Family)
		for _, pod := range table.Pods {
			now, found, err := c.Element(tableName, s.Name, pod.Address)
			if err != nil {
				return err
			}
			m := podMember(pod)
			if found && now.Comment != m.comment {
				m = sharedMember(pod)
			}
			if found {
				b.DeleteElements(tableName, s.Name, elements(s, []member{m}))
			}
			b.AddElements(tableName, s.Name, elements(s, []member{m}), nfnl.Excl)
		}
	}
	return c.Commit(b)
}
