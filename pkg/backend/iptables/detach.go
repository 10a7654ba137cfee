package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// Detach deletes every rule of an owner, found by its comment, however often each stands there. Every owner of an address has
// rules of its own, so it does not matter who else is on record with it.
func (b *Backend) Detach(ctx context.Context, s policy.Settings, families []policy.Family, id attachment.ID, known []ruleset.Pod, _ backend.OnRecord) error {
	if b.isNFT() {
		err := deleteNFT(ctx, []string{s.PodsChain(), sourcesChain(s)}, families, func(_ policy.Family, raw []byte) bool { return namesOwner(raw, id) })
		if err != nil {
			return fmt.Errorf("detach: %w", err)
		}
		return nil
	}
	var failures []error
	for _, family := range families {
		if err := b.detachLegacy(ctx, s, family, id, podsOf(id, family, known)); err != nil {
			failures = append(failures, fmt.Errorf("detach %s: %w", family, err))
		}
	}
	return errors.Join(failures...)
}

// detachLegacy deletes what is on record in one transaction, and then whatever the kernel still names.
func (b *Backend) detachLegacy(ctx context.Context, s policy.Settings, family policy.Family, id attachment.ID, known []ruleset.Pod) error {
	table := ruleset.Table{Family: family, Pods: known}
	rules := []list{{s.PodsChain(), podRules(s, table)}, {sourcesChain(s), sourceRules(s, table)}}
	for range listAttempts {
		if named, err := b.mayHold(family, id); err == nil && !named {
			return nil
		}
		sc := deletes(rules)
		if sc.empty() {
			var err error
			if rules, err = b.ownedBy(ctx, s, family, id); err != nil {
				return err
			}
			if sc = deletes(rules); sc.empty() {
				return nil
			}
		}
		if _, err := b.restore(ctx, family, sc); err != nil && classified(err) {
			return err
		}
		rules = nil // The record may be wrong, or another program was faster: look.
	}
	return fmt.Errorf("%w: %s changes all the time", backend.ErrBusy, s.PodsChain())
}

func deletes(rules []list) *script {
	sc := newScript()
	for _, c := range rules {
		for _, r := range c.rules {
			sc.delete(c.name, r)
		}
	}
	return sc
}

// ownedBy lists an owner's rules.
func (b *Backend) ownedBy(ctx context.Context, s policy.Settings, family policy.Family, id attachment.ID) (rules []list, err error) {
	names := slices.DeleteFunc([]string{s.PodsChain(), sourcesChain(s)}, func(name string) bool { return !legacyHasChain(family, natTable, name) })
	listed, err := b.printed(ctx, family, names...)
	for _, name := range names {
		rules = append(rules, list{name, slices.DeleteFunc(listed[name], func(r rule) bool {
			pod, ok := podOf(r)
			return !ok || pod.Owner != id
		})})
	}
	return rules, err
}

// mayHold reports whether the kernel has a rule of the owner. Where it has none, neither iptables nor its lock is needed.
func (b *Backend) mayHold(family policy.Family, id attachment.ID) (bool, error) {
	if untouched(b.kind, family, natTable) {
		return false, nil
	}
	entries, err := legacyEntries(family, natTable)
	return err == nil && namesOwner(entries, id), err
}

// namesOwner looks for an owner's comment in what the kernel holds.
func namesOwner(held []byte, id attachment.ID) bool {
	return bytes.Contains(held, []byte(podCommentPrefix+" "+string(id)+" "))
}

// podsOf picks what a record lists of one family, and no other owner's pods, whatever it lists.
func podsOf(id attachment.ID, family policy.Family, known []ruleset.Pod) []ruleset.Pod {
	return slices.DeleteFunc(slices.Clone(known), func(p ruleset.Pod) bool { return p.Owner != id || policy.FamilyOf(p.Address) != family })
}
