package iptables

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// The comments of the rules for what is no attached pod's traffic.
const (
	nodeComment     = "ip-masq-agent: traffic of the node itself, and all other that is of no pod"
	optedOutComment = "ip-masq-agent: opted out, keeps its source"
)

// Where the policy governs what is no pod's as well (Settings.NodeTraffic), the last rule of the pods' chain leads to a chain of
// its own: addresses that opted out return from it, and everything else but multicast goes to the shared chain. Pods are asked
// before it, so an address that opted out and is attached by another owner is masqueraded.

func hasNode(s policy.Settings) bool { return s.NodeTraffic && s.Sources == policy.SourcesPods }

// toNode is the last rule of the pods' chain.
func toNode(s policy.Settings) rule {
	return join(comment(nodeComment), rule{"-g", nodeChain(s)})
}

// podsChainRules are all rules of the pods' chain.
func podsChainRules(s policy.Settings, table ruleset.Table) []rule {
	rules := podRules(s, table)
	if s.NodeTraffic {
		rules = append(rules, toNode(s))
	}
	return rules
}

func nodeRules(s policy.Settings, table ruleset.Table) []rule {
	rules := make([]rule, 0, len(table.OptedOut)+1)
	for _, address := range table.OptedOut {
		rules = append(rules, optedOutRule(table.Family, address))
	}
	return append(rules, join(rule{"!", "-d", table.Family.Multicast().String()}, comment(nodeComment), rule{"-g", s.Chain}))
}

func optedOutRule(family policy.Family, address netip.Addr) rule {
	return join(rule{"-s", netip.PrefixFrom(address, family.Bits()).String()}, comment(optedOutComment), rule{"-j", "RETURN"})
}

// optedOutOf reads back the address of an optedOutRule.
func optedOutOf(r rule) (netip.Addr, bool) {
	source, err := netip.ParsePrefix(r.value("-s"))
	return source.Addr(), err == nil && r.value("--comment") == optedOutComment
}

// planNode writes the chain anew where anything but the order of the addresses that opted out differs.
func planNode(sc *script, s policy.Settings, table ruleset.Table, now []rule, there bool) {
	rules := nodeRules(s, table)
	if missing, surplus := difference(rules, now); !there || len(missing)+len(surplus) > 0 ||
		!slices.Equal(now[len(now)-1], rules[len(rules)-1]) {
		planWhole(sc, nodeChain(s), there, rules)
	}
}

// optedOutNFT reads the addresses that opted out without iptables.
func optedOutNFT(s policy.Settings, family policy.Family) (addresses []netip.Addr, err error) {
	err = withNFT(family, func(c *nfnl.Conn) error {
		rules, err := nftRules(c, nodeChain(s))
		for _, raw := range rules {
			if address, ok := optedOutOfNative(family, raw); ok {
				addresses = append(addresses, address)
			}
		}
		return err
	})
	return addresses, err
}

func optedOutOfNative(family policy.Family, raw []byte) (netip.Addr, bool) {
	r := nfnl.DecodeRule(raw)
	address, ok := sourceOfNative(family, r)
	return address, ok && nfnl.XTComment(r) == optedOutComment
}

// Release deletes the rules of addresses that opted out.
func (b *Backend) Release(ctx context.Context, s policy.Settings, addresses []netip.Addr) error {
	if len(addresses) == 0 {
		return nil
	}
	isOne := func(address netip.Addr, ok bool) bool { return ok && slices.Contains(addresses, address) }
	if b.isNFT() {
		families := []policy.Family{policy.IPv4, policy.IPv6}
		families = slices.DeleteFunc(families, func(f policy.Family) bool { return !hasFamily(f, addresses) })
		err := deleteNFT(ctx, []string{nodeChain(s)}, families, func(f policy.Family, raw []byte) bool { return isOne(optedOutOfNative(f, raw)) })
		if err != nil {
			return fmt.Errorf("release addresses that opted out: %w", err)
		}
		return nil
	}
	for _, family := range []policy.Family{policy.IPv4, policy.IPv6} {
		if !hasFamily(family, addresses) || !legacyHasChain(family, natTable, nodeChain(s)) {
			continue
		}
		now, err := b.printed(ctx, family, nodeChain(s))
		if err != nil {
			return fmt.Errorf("release %s addresses that opted out: %w", family, err)
		}
		sc := newScript()
		for _, r := range now[nodeChain(s)] {
			if isOne(optedOutOf(r)) {
				sc.delete(nodeChain(s), r)
			}
		}
		if sc.empty() {
			continue
		}
		if _, err := b.restore(ctx, family, sc); err != nil {
			return fmt.Errorf("release %s addresses that opted out: %w", family, err)
		}
	}
	return nil
}

func hasFamily(f policy.Family, addresses []netip.Addr) bool {
	return slices.ContainsFunc(addresses, func(a netip.Addr) bool { return policy.FamilyOf(a) == f })
}
