package nftables

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
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
	err := session(ctx, func(c *nfnl.Conn, _ uint32) error {
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

// addPods expects that nobody has the addresses, which costs one round trip, and looks closer where somebody does.
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

// takeOver gives the addresses to their new owner: an address whose former owner's DEL is still to come belongs to the pod
// that has it now. The guard makes sure that nobody changed the elements after they were read.
func takeOver(c *nfnl.Conn, tables []ruleset.Table) error {
	generation, err := c.Generation()
	if err != nil {
		return err
	}
	b := nfnl.NewGuardedBatch(generation)
	for _, table := range tables {
		s := setOf(podsSet(table.Family), table.Family)
		for _, m := range claim(table.Pods, nil) {
			now, found, err := c.Element(tableName, s.Name, m.first)
			if err != nil {
				return err
			}
			if found && now.Comment == m.comment {
				continue
			}
			if found {
				b.DeleteElements(tableName, s.Name, elements(s, []member{m}))
			}
			b.AddElements(tableName, s.Name, elements(s, []member{m}), nfnl.Excl)
		}
	}
	return c.Commit(b)
}

// Detach deletes the addresses that belong to the owner. The record says where to look first; where it is missing or wrong,
// the sets are searched.
func (b *Backend) Detach(ctx context.Context, _ policy.Settings, families []policy.Family, id attachment.ID, known []ruleset.Pod) error {
	err := session(ctx, func(c *nfnl.Conn, _ uint32) error {
		return again(ctx, func() error { return vanished(detach(c, families, id, known)) })
	})
	if isAny(err, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, unix.EINVAL) {
		return nil // a kernel without nf_tables holds nothing of ours
	}
	if err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	return nil
}

// vanished turns the answer that an element is not there into one that is worth another attempt. The kernel raises the
// generation an instant before it shows what the generation changed (nf_tables_commit), so what is read in that instant may
// name an element that the transaction, guarded by the new generation, no longer finds.
func vanished(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%w: %w", nfnl.ErrInterrupted, err)
	}
	return err
}

// detach compares and deletes: the generation that was read first guards the transaction.
func detach(c *nfnl.Conn, families []policy.Family, id attachment.ID, known []ruleset.Pod) error {
	generation, err := c.Generation()
	if err != nil {
		return err
	}
	owned, err := lookUp(c, families, id, known)
	if err == nil && (len(owned) == 0 || len(owned) < len(known)) {
		owned, err = search(c, families, id)
	}
	if err != nil {
		return err
	}
	b := nfnl.NewGuardedBatch(generation)
	for _, pod := range owned {
		s := setOf(podsSet(policy.FamilyOf(pod.Address)), policy.FamilyOf(pod.Address))
		b.DeleteElements(tableName, s.Name, elements(s, []member{podMember(pod)}))
	}
	return c.Commit(b)
}

// lookUp returns those of the known pods that the owner has in the kernel.
func lookUp(c *nfnl.Conn, families []policy.Family, id attachment.ID, known []ruleset.Pod) ([]ruleset.Pod, error) {
	var owned []ruleset.Pod
	for _, f := range families {
		for _, pod := range known {
			if policy.FamilyOf(pod.Address) != f {
				continue
			}
			e, found, err := c.Element(tableName, podsSet(f), pod.Address)
			if err != nil {
				return nil, err
			}
			if now, ours := podOf(member{e.Key, e.Key, e.Comment}); found && ours && now.Owner == id {
				owned = append(owned, now)
			}
		}
	}
	return owned, nil
}

// search reads the sets as wholes. One that is not there holds nothing.
func search(c *nfnl.Conn, families []policy.Family, id attachment.ID) ([]ruleset.Pod, error) {
	var owned []ruleset.Pod
	for _, f := range families {
		all, err := c.Elements(tableName, podsSet(f))
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, err
		}
		for _, e := range all {
			if pod, ours := podOf(member{e.Key, e.Key, e.Comment}); ours && pod.Owner == id {
				owned = append(owned, pod)
			}
		}
	}
	return owned, nil
}
