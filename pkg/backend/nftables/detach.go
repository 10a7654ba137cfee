package nftables

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// Detach deletes the addresses that belong to the owner, or hands them over to another attachment on record. The record says
// where to look first; where it is missing or wrong, the sets are searched.
func (b *Backend) Detach(ctx context.Context, _ policy.Settings, families []policy.Family, id attachment.ID, known []ruleset.Pod, onRecord backend.OnRecord) error {
	err := session(ctx, func(c *nfnl.Conn) error {
		return detachAll(ctx, c, families, id, known, onRecord)
	})
	if err != nil && !lacksTables(err) {
		return fmt.Errorf("detach: %w", err)
	}
	return nil
}

// detachAll detaches until whoever took an address over is on record. An owner whose own Detach ran between the reading of the
// records and the transaction saw the address in other hands and left it there, so its address is detached in its place.
func detachAll(ctx context.Context, c *nfnl.Conn, families []policy.Family, id attachment.ID, known []ruleset.Pod, onRecord backend.OnRecord) error {
	var heirs []ruleset.Pod
	err := again(ctx, func() (err error) {
		heirs, err = detach(c, families, id, known, onRecord)
		return err
	})
	for _, pod := range heirs {
		if err == nil && !slices.ContainsFunc(onRecord(pod.Address), func(p ruleset.Pod) bool { return p.Owner == pod.Owner }) {
			err = detachAll(ctx, c, []policy.Family{policy.FamilyOf(pod.Address)}, pod.Owner, []ruleset.Pod{pod}, onRecord)
		}
	}
	return err
}

// detach compares and deletes: the generation that was read first guards the transaction. The records are read after it, so
// an attachment that comes on record later finds the element gone, or changes it and stops the transaction. It returns who
// took addresses over.
//
// An element that names another owner is left to that one: if it is on record it keeps the element, and if it is not, its own
// Detach, which runs or is still to come, finds whoever else is on record.
func detach(c *nfnl.Conn, families []policy.Family, id attachment.ID, known []ruleset.Pod, onRecord backend.OnRecord) (heirs []ruleset.Pod, err error) {
	generation, err := c.Settled()
	if err != nil {
		return nil, err
	}
	owned, sources, err := lookUp(c, families, id, known)
	if err == nil && (len(owned) == 0 || len(owned) < len(known)) {
		owned, sources, err = search(c, families, id)
	}
	if err != nil {
		return nil, err
	}
	b := nfnl.NewGuardedBatch(generation)
	for _, m := range sources {
		f := policy.FamilyOf(m.first)
		remove(b, f, sourcesMap(f), m)
	}
	for _, m := range owned {
		f := policy.FamilyOf(m.first)
		remove(b, f, podsSet(f), m)
		if next, found := heir(m, id, onRecord); found {
			heirs = append(heirs, next)
			add(b, f, podsSet(f), nfnl.Excl, sharedMember(next))
			if next.Translated.IsValid() {
				_, there, err := c.SetAttributes(tableName, sourcesMap(f)) // the first such pod may not have made it yet
				if err != nil {
					return nil, err
				}
				if there {
					add(b, f, sourcesMap(f), 0, sourceMember(next))
				}
			}
		}
	}
	return heirs, vanished(c.Commit(b))
}

// heir returns who takes over an address whose owner goes.
func heir(m member, id attachment.ID, onRecord backend.OnRecord) (ruleset.Pod, bool) {
	if !m.shared() || onRecord == nil {
		return ruleset.Pod{}, false
	}
	for _, pod := range onRecord(m.first) {
		if pod.Owner != id {
			return pod, true
		}
	}
	return ruleset.Pod{}, false
}

// lookUp returns those of the known pods' addresses that the owner has in the kernel, and those for which it chose a source.
func lookUp(c *nfnl.Conn, families []policy.Family, id attachment.ID, known []ruleset.Pod) (owned, sources []member, err error) {
	for _, f := range families {
		for _, pod := range known {
			if policy.FamilyOf(pod.Address) != f {
				continue
			}
			if owned, err = lookUpOne(c, owned, podsSet(f), pod.Address, id); err != nil {
				return nil, nil, err
			}
			if sources, err = lookUpOne(c, sources, sourcesMap(f), pod.Address, id); err != nil {
				return nil, nil, err
			}
		}
	}
	return owned, sources, nil
}

func lookUpOne(c *nfnl.Conn, owned []member, set string, address netip.Addr, id attachment.ID) ([]member, error) {
	e, found, err := c.Element(tableName, set, address)
	if err != nil || !found {
		return owned, err
	}
	return appendOwned(owned, e, id), nil
}

// search reads the sets as wholes. One that is not there holds nothing.
func search(c *nfnl.Conn, families []policy.Family, id attachment.ID) (owned, sources []member, err error) {
	for _, f := range families {
		if owned, err = searchOne(c, owned, podsSet(f), id); err != nil {
			return nil, nil, err
		}
		if sources, err = searchOne(c, sources, sourcesMap(f), id); err != nil {
			return nil, nil, err
		}
	}
	return owned, sources, nil
}

func searchOne(c *nfnl.Conn, owned []member, set string, id attachment.ID) ([]member, error) {
	all, err := c.Elements(tableName, set)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, err
	}
	for _, e := range all {
		owned = appendOwned(owned, e, id)
	}
	return owned, nil
}

func appendOwned(owned []member, e nfnl.Element, id attachment.ID) []member {
	m := member{e.Key, e.Key, e.Value, e.Comment}
	if pod, ours := podOf(m); ours && pod.Owner == id {
		owned = append(owned, m)
	}
	return owned
}
