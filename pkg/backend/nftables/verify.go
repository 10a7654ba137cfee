package nftables

import (
	"context"
	"fmt"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// Verify reads the rules, which are few, and looks up the pods one by one. An address in the set is masqueraded whoever owns
// it, so the owner does not matter here.
func (b *Backend) Verify(ctx context.Context, want ruleset.State) error {
	return session(ctx, func(c *nfnl.Conn) error {
		rules, err := ownRules(ctx, c)
		if err != nil {
			return err
		}
		if missing := firstMissing(want.Settings, want.Tables, rules); missing != nil {
			return missing
		}
		return verifyPods(c, want.Tables)
	})
}

// firstMissing names the first part that the tables need and that is not there; nil where all are. It does not insist on what
// the shared chain says: that is between the agent and whoever else wrote it.
func firstMissing(s policy.Settings, tables []ruleset.Table, got map[string][]nfnl.Rule) error {
	for _, table := range tables {
		f := table.Family
		if want := rootRule(s, f); !hasRule(got[baseChain], want) {
			return missing(backend.PartRoot, f, "%q in chain %s", want.Text, baseChain)
		}
		if rules := got[s.Chain]; chainState(s, f, len(rules) > 0, rules) != backend.ChainFilled {
			return missing(backend.PartChain, f, "%s is empty or not there", s.Chain)
		}
	}
	return nil
}

func missing(part backend.Part, f policy.Family, format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	return &backend.Missing{Part: part, Detail: fmt.Sprintf("%s of table inet %s (%s)", what, tableName, f)}
}

func verifyPods(c *nfnl.Conn, tables []ruleset.Table) error {
	for _, table := range tables {
		name := podsSet(table.Family)
		for _, pod := range table.Pods {
			_, found, err := c.Element(tableName, name, pod.Address)
			if err != nil {
				return err
			}
			if !found {
				return missing(backend.PartPod, table.Family, "%s in set %s", pod.Address, name)
			}
		}
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
		rules, err := ownRules(ctx, c)
		state = chainState(s, family, there, rules[s.Chain])
		return err
	})
	return state, err
}
