package nftables

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// Verify reads the rules, which are few, and looks up the pods one by one. An address in the set is masqueraded whoever owns
// it, so the owner does not matter here.
func (b *Backend) Verify(ctx context.Context, want ruleset.State) error {
	return session(ctx, func(c *nfnl.Conn) error {
		rules, err := policyRules(ctx, c, want.Settings)
		if err != nil {
			return err
		}
		if missing := firstMissing(want.Settings, want.Tables, rules); missing != nil {
			return missing
		}
		return verifyPods(c, want.Settings, want.Tables)
	})
}

// firstMissing names the first part that the tables need and that is not there; nil where all are. It does not insist on what
// the shared chain says: that is between the agent and whoever else wrote it.
func firstMissing(s policy.Settings, tables []ruleset.Table, got map[string][]nfnl.Rule) error {
	for _, table := range tables {
		f := table.Family
		for _, want := range rootRules(s, f) {
			if !hasRule(got[baseChain], want) {
				return missing(backend.PartRoot, f, "%q in chain %s", want.Text, baseChain)
			}
		}
		if rules := got[s.Chain]; chainState(s, f, len(rules) > 0, rules) != backend.ChainFilled {
			return missing(backend.PartChain, f, "%s is empty or not there", s.Chain)
		}
		if translates(table) && !looksUpSources(got[s.Chain], f) {
			return missing(backend.PartChain, f, "%s does not look for source addresses that pods chose", s.Chain)
		}
	}
	return nil
}

func missing(part backend.Part, f policy.Family, format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	return &backend.Missing{Part: part, Detail: fmt.Sprintf("%s of table inet %s (%s)", what, tableName, f)}
}

// verifyPods looks for the pods, for the source addresses that they chose, and for those that opted out where that is a set.
func verifyPods(c *nfnl.Conn, s policy.Settings, tables []ruleset.Table) error {
	for _, table := range tables {
		f := table.Family
		for _, pod := range table.Pods {
			if s.Sources != policy.SourcesAll {
				if err := verifyElement(c, f, podsSet(f), pod.Address, ""); err != nil {
					return err
				}
			}
			if pod.Translated.IsValid() {
				if err := verifyElement(c, f, sourcesMap(f), pod.Address, pod.Translated.String()); err != nil {
					return err
				}
			}
		}
		for _, address := range table.OptedOut {
			if err := verifyElement(c, f, optedOutSet(f), address, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

func verifyElement(c *nfnl.Conn, f policy.Family, set string, address netip.Addr, value string) error {
	e, found, err := c.Element(tableName, set, address)
	switch {
	case err != nil:
		return err
	case !found:
		return missing(backend.PartPod, f, "%s in set %s", address, set)
	case e.Value != value:
		return missing(backend.PartPod, f, "%s : %s in map %s, which has %s for it", address, value, set, e.Value)
	}
	return nil
}

// Chain reads the rules, which are few, and none of the sets.
func (b *Backend) Chain(ctx context.Context, s policy.Settings, family policy.Family) (state backend.ChainState, err error) {
	err = session(ctx, func(c *nfnl.Conn) error {
		_, there, err := c.Chain(tableName, s.Chain)
		if err != nil {
			return err
		}
		rules, err := policyRules(ctx, c, s)
		state = chainState(s, family, there, rules[s.Chain])
		return err
	})
	return state, err
}
