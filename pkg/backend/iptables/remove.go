package iptables

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// Remove takes the root rules, our rules and our chains, in one transaction. A chain in which somebody else has a rule, or to
// which somebody else's rule leads, stays without our rules; the error is a *backend.Kept that names those.
func (b *Backend) Remove(ctx context.Context, s policy.Settings, family policy.Family) error {
	got, err := b.read(ctx, s, family)
	if err != nil {
		return err
	}
	kept := foreignInside(s, got)
	err = b.remove(ctx, s, family, got, len(kept) == 0)
	var refused *ExitError
	if errors.As(err, &refused) && len(kept) == 0 {
		if kept = b.leadingIn(ctx, s, family); len(kept) == 0 {
			kept = []string{"a rule in another chain of table nat that jumps to one of ours"}
		}
		err = b.remove(ctx, s, family, got, false)
	}
	if err != nil {
		return fmt.Errorf("remove %s rules: %w", family, err)
	}
	if len(kept) > 0 {
		return &backend.Kept{Place: fmt.Sprintf("table nat (%s, %s)", family, b.kind), Rules: kept}
	}
	return nil
}

// remove sends the removal, with the chains or without.
func (b *Backend) remove(ctx context.Context, s policy.Settings, family policy.Family, got chains, drop bool) error {
	sc := newScript()
	for _, r := range got[postrouting] {
		if isRoot(s, r) {
			sc.delete(postrouting, r)
		}
	}
	for _, chain := range []string{s.PodsChain(), s.Chain} {
		rules, there := got[chain]
		switch {
		case there && drop:
			sc.drop(chain)
		case there:
			for _, r := range slices.DeleteFunc(slices.Clone(rules), func(r rule) bool { return !isOurs(r) }) {
				sc.delete(chain, r)
			}
		}
	}
	if sc.empty() {
		return nil
	}
	_, err := b.restore(ctx, family, sc)
	return err
}

// isOurs recognises a rule of any ip-masq-agent by its comment.
func isOurs(r rule) bool {
	comment := strings.TrimPrefix(r.value("--comment"), `"`)
	return strings.HasPrefix(comment, "ip-masq-agent:") || strings.HasPrefix(comment, podCommentPrefix+" ")
}

// foreignInside lists the rules in our chains that no ip-masq-agent wrote.
func foreignInside(s policy.Settings, got chains) []string {
	var kept []string
	for _, chain := range []string{s.Chain, s.PodsChain()} {
		for _, r := range got[chain] {
			if !isOurs(r) {
				kept = append(kept, fmt.Sprintf("-A %s %s", chain, r))
			}
		}
	}
	return kept
}

// builtinChains are where a stranger's jump to our chains is looked for: to search every chain would be to list the table.
var builtinChains = []string{"PREROUTING", "INPUT", "OUTPUT", postrouting}

// leadingIn lists the rules of the built-in chains that lead into ours and are not ours.
func (b *Backend) leadingIn(ctx context.Context, s policy.Settings, family policy.Family) []string {
	var found []string
	for _, chain := range builtinChains {
		got, err := b.list(ctx, family, chain)
		if err != nil {
			continue
		}
		for _, r := range got[chain] {
			if target := r.target(); (target == s.Chain || target == s.PodsChain()) && !isRoot(s, r) {
				found = append(found, fmt.Sprintf("-A %s %s", chain, r))
			}
		}
	}
	return found
}

// Diff lists what Apply would send, in the words of iptables-restore.
func (b *Backend) Diff(got backend.Observed, want ruleset.State) []string {
	raw, _ := got.Raw.(reading)
	var lines []string
	for _, table := range want.Tables {
		for _, line := range plan(want.Settings, want.KeepChain, table, raw[table.Family]).lines {
			lines = append(lines, fmt.Sprintf("%s: %s", table.Family, line))
		}
	}
	return lines
}
