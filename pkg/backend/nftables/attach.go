package nftables

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
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
		if err := addPods(ctx, c, want.Settings.Sources, want.Tables); err != nil {
			return err
		}
		rules, err := policyRules(ctx, c, want.Settings)
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
func addPods(ctx context.Context, c *nfnl.Conn, sources policy.Sources, tables []ruleset.Table) error {
	b := nfnl.NewBatch()
	for _, table := range tables {
		if sources != policy.SourcesAll {
			add(b, table.Family, podsSet(table.Family), nfnl.Excl, claim(table.Pods, nil)...)
		}
		add(b, table.Family, sourcesMap(table.Family), nfnl.Excl, claimSources(table.Pods, nil)...)
		add(b, table.Family, optedOutSet(table.Family), 0, optedOutMembers(table.OptedOut)...)
	}
	err := c.Commit(b)
	if errors.Is(err, unix.EEXIST) {
		err = again(ctx, func() error { return takeOver(c, sources, tables) })
	}
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%w: %w", backend.ErrIncomplete, err)
	}
	return err
}

func add(b *nfnl.Batch, f policy.Family, name string, flags uint16, members ...member) {
	b.AddElements(tableName, name, elements(setOf(name, f), members, nil), flags)
}

func remove(b *nfnl.Batch, f policy.Family, name string, members ...member) {
	b.DeleteElements(tableName, name, elements(setOf(name, f), members, nil))
}

// takeOver gives the addresses to their new owner and marks them as shared: another attachment has them too, or its DEL is
// still to come. The guard makes sure that nobody changed the elements after they were read. Every element is written, also
// one that is right already: only a change raises the generation, and so stops a DEL that planned to delete the element
// before this attachment was on record.
func takeOver(c *nfnl.Conn, sources policy.Sources, tables []ruleset.Table) error {
	generation, err := c.Settled()
	if err != nil {
		return err
	}
	b := nfnl.NewGuardedBatch(generation)
	for _, table := range tables {
		f := table.Family
		for _, pod := range table.Pods {
			if sources != policy.SourcesAll {
				if err := takeOverPod(c, b, f, pod); err != nil {
					return err
				}
			}
			if err := takeOverSource(c, b, f, pod); err != nil {
				return err
			}
		}
		add(b, f, optedOutSet(f), 0, optedOutMembers(table.OptedOut)...)
	}
	return c.Commit(b)
}

func takeOverPod(c *nfnl.Conn, b *nfnl.Batch, f policy.Family, pod ruleset.Pod) error {
	now, found, err := c.Element(tableName, podsSet(f), pod.Address)
	if err != nil {
		return err
	}
	m := podMember(pod)
	if found && now.Comment != m.comment {
		m = sharedMember(pod)
	}
	if found {
		remove(b, f, podsSet(f), m)
	}
	add(b, f, podsSet(f), nfnl.Excl, m)
	return nil
}

// takeOverSource puts the pod's source address, or none, in the place of the one that the former owner chose.
func takeOverSource(c *nfnl.Conn, b *nfnl.Batch, f policy.Family, pod ruleset.Pod) error {
	_, found, err := c.Element(tableName, sourcesMap(f), pod.Address)
	if err != nil {
		return err
	}
	if found {
		remove(b, f, sourcesMap(f), podMember(pod))
	}
	if pod.Translated.IsValid() {
		add(b, f, sourcesMap(f), nfnl.Excl, sourceMember(pod))
	}
	return nil
}

// Release takes addresses that opted out out of their sets; what is not there is no error.
func (b *Backend) Release(ctx context.Context, _ policy.Settings, addresses []netip.Addr) error {
	err := session(ctx, func(c *nfnl.Conn) error {
		return again(ctx, func() error {
			batch := nfnl.NewBatch()
			for _, address := range addresses {
				f := policy.FamilyOf(address)
				_, found, err := c.Element(tableName, optedOutSet(f), address)
				if err != nil {
					return err
				}
				if found {
					remove(batch, f, optedOutSet(f), optedOutMembers([]netip.Addr{address})...)
				}
			}
			return vanished(c.Commit(batch))
		})
	})
	if err != nil && !lacksTables(err) {
		return fmt.Errorf("release addresses that opted out: %w", err)
	}
	return nil
}
