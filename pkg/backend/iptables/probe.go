package iptables

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// probeChain is where test rules go. Nothing jumps there. It has one name, so that what a killed probe left is found: the next
// probe writes it anew, and Remove takes it out.
const probeChain = "IP-MASQ-AGENT-PROBE"

// Probe writes rules of every form into a chain of its own, prints it and removes it, in one process. Some hosts accept xt
// matches and drop them silently (iptables-nft on kernels without the modules), which only reading back shows. Where random
// ports are unknown to the program, or refused, it does without; asking for the version first would be one more process.
func (b *Backend) Probe(ctx context.Context, family policy.Family) (backend.Features, error) {
	if err := b.probe(ctx, family, probeRules(family, true)); err == nil || classified(err) {
		return backend.Features{RandomFully: err == nil}, err
	}
	if err := b.probe(ctx, family, probeRules(family, false)); err != nil {
		return backend.Features{}, fmt.Errorf("%w: %s test rule: %w", backend.ErrUnavailable, b.kind, err)
	}
	return backend.Features{}, nil
}

// canDrop reports whether a rule that drops can be written, as an egress group needs it that has no address and should not be
// masqueraded. No other policy needs what it takes, so that Probe does not ask.
func (b *Backend) canDrop(ctx context.Context, family policy.Family) bool {
	return b.probe(ctx, family, []rule{dropRule(1)}) == nil
}

func (b *Backend) probe(ctx context.Context, family policy.Family, rules []rule) error {
	sc := newScript()
	sc.declare(probeChain)
	sc.appendAll(probeChain, rules)
	sc.list(probeChain)
	sc.reads = append(sc.reads, "-F "+probeChain, "-X "+probeChain)
	out, err := b.restore(ctx, family, sc)
	if err != nil {
		return err
	}
	missing, _ := difference(rules, parseChains(out)[probeChain])
	if len(missing) > 0 {
		return fmt.Errorf("%w: %s", errDropped, missing[0])
	}
	return nil
}

// probeRules are one rule of each form. The pod's rule returns instead of going to a chain that may not be there yet.
func probeRules(family policy.Family, randomFully bool) []rule {
	s := policy.Settings{Chain: "RETURN", RandomFully: randomFully}
	address := family.LinkLocal().Addr()
	table := ruleset.Table{
		Family:       family,
		Destinations: []policy.Destination{{Prefix: netip.PrefixFrom(address, family.Bits()), Verdict: policy.Keep}},
		Pods:         []ruleset.Pod{{Owner: attachment.Owner{}.ID(), Address: address, Label: "probe"}},
	}
	pods := podRules(s, table)
	for _, r := range pods {
		r[len(r)-2] = "-j"
	}
	return append(destinationRules(s, table), pods...)
}
