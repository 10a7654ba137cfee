package backendtest

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

func probeLeavesNothing(f *fixture) {
	for _, family := range f.s.Families() {
		f.must(f.in(func(ctx context.Context) error {
			features, err := f.backend.Probe(ctx, family)
			if err == nil && !features.RandomFully {
				f.Error("no random ports on a kernel that has them")
			}
			return err
		}), "Probe")
	}
	if f.ours() {
		f.Errorf("Probe left something:\n%s", f.dump())
	}
}

func applyCreatesOnce(f *fixture) {
	want := f.state(f.policy(), f.pod(1), f.pod(2))
	if len(f.backend.Diff(f.observe(), want)) == 0 {
		f.Error("Diff tells nothing of what is to be created")
	}
	changed, err := f.apply(backend.Observed{}, want)
	f.must(err, "Apply on nothing")
	if !changed {
		f.Error("Apply on nothing reports no change")
	}
	before := f.dump()
	if f.sync(want) {
		f.Error("the second Apply reports a change")
	}
	if after := f.dump(); after != before {
		f.Errorf("the second Apply changed\n%s\ninto\n%s", before, after)
	}
	for _, table := range f.observe().Tables {
		if table.Root != 1 || table.Chain != backend.ChainFilled || len(table.Pods) != 2 {
			f.Errorf("%s: %+v, want one root, a filled chain, two pods", table.Family, table)
		}
		if state := f.chain(table.Family); state != backend.ChainFilled {
			f.Errorf("%s: Chain says %s", table.Family, state)
		}
	}
}

func applyWithoutReadingFails(f *fixture) {
	f.sync(f.state(f.policy(), f.pod(1)))
	before := f.dump()
	if _, err := f.apply(backend.Observed{}, f.state(f.policy(), f.pod(2))); err == nil {
		f.Error("Apply overwrote what was not to be there")
	}
	if after := f.dump(); after != before {
		f.Errorf("the refused Apply changed\n%s\ninto\n%s", before, after)
	}
}

func applyFollowsPolicy(f *fixture) {
	p := f.policy()
	for _, change := range []func(){
		func() {},
		func() { p.NonMasquerade = append(p.NonMasquerade, prefixes("198.51.100.0/24", "203.0.113.9/32")...) },
		func() { p.Masquerade = prefixes("10.50.0.0/16", "10.60.0.1/32") },
		func() { p.NonMasquerade = slices.DeleteFunc(p.NonMasquerade, isTen); p.Masquerade = nil },
		func() { p.NonMasquerade = nil },
		func() { p.MasqLinkLocal, p.MasqLinkLocalIPv6 = true, true },
		func() { p = f.policy() },
	} {
		change()
		f.settle(f.state(p, f.pod(1)))
	}
}

func keepChainLeavesFilled(f *fixture) {
	f.sync(f.state(f.policy(), f.pod(1)))
	before := f.dump()
	p := f.policy()
	p.NonMasquerade = nil
	want := f.state(p, f.pod(1))
	want.KeepChain = true
	if f.sync(want) {
		f.Errorf("Apply with KeepChain changed\n%s\ninto\n%s", before, f.dump())
	}
	want = f.state(p, f.pod(1), f.pod(2))
	want.KeepChain = true
	f.settle(want)
	f.must(f.verify(f.pod(2)), "Verify")
	f.sync(f.state(f.policy(), f.pod(1)))
	if after := f.dump(); after != before {
		f.Errorf("more than the pods had changed:\n%s\ninto\n%s", before, after)
	}
}

func keepChainFillsEmpty(f *fixture) {
	want := f.state(f.policy(), f.pod(1))
	want.KeepChain = true
	f.settle(want)
	filled := f.dump()
	f.flush(f.s.Chain)
	for _, family := range f.s.Families() {
		if state := f.chain(family); state != backend.ChainEmpty {
			f.Errorf("Chain says %s of a flushed chain", state)
		}
	}
	f.settle(want)
	if after := f.dump(); after != filled {
		f.Errorf("filled again, there is\n%s\ninstead of\n%s", after, filled)
	}
}

// keepChainOneFamily is what a plugin does for a pod that has one family only.
func keepChainOneFamily(f *fixture) {
	f.sync(f.state(f.policy(), f.pod(1)))
	before := f.dump()
	for _, family := range f.s.Families() {
		want := f.state(f.policy(), f.pod(1)).Of(family)
		want.KeepChain = true
		var changed bool
		f.must(f.in(func(ctx context.Context) error {
			got, err := f.backend.Observe(ctx, f.s, family)
			if err == nil {
				changed, err = f.backend.Apply(ctx, got, want)
			}
			return err
		}), "Apply")
		if after := f.dump(); changed || after != before {
			f.Errorf("%s alone changed\n%s\ninto\n%s", family, before, after)
		}
	}
}

func applyRemovesPods(f *fixture) {
	f.sync(f.state(f.policy(), f.pod(1), f.pod(2), f.pod(3)))
	f.settle(f.state(f.policy(), f.pod(3), f.pod(4)))
	for _, table := range f.observe().Tables {
		if len(table.Pods) != 2 {
			f.Errorf("%s: %v, want the pods 3 and 4", table.Family, table.Pods)
		}
	}
	f.settle(f.state(f.policy()))
	if pods := f.observe().Pods(); len(pods) > 0 {
		f.Errorf("left: %v", pods)
	}
}

func applyTwoOwners(f *fixture) {
	a := f.pod(1)
	f.settle(f.state(f.policy(), a, heir(a)))
	f.must(f.verify(a), "Verify")
	f.settle(f.state(f.policy(), heir(a)))
	f.settle(f.state(f.policy(), a, heir(a)))
	f.settle(f.state(f.policy(), a))
	for _, pod := range f.observe().Pods() {
		if pod.Owner != a.ID() {
			f.Errorf("%v: want owner %s alone", pod, a.ID())
		}
	}
}

func applyMends(f *fixture) {
	want := f.state(f.policy(), f.pod(1))
	f.sync(want)
	before := f.dump()
	for _, breakIt := range []func(){
		func() { f.flush(f.s.Chain) },
		f.flushRoot,
		func() { f.must(f.detach(f.pod(1)), "Detach") },
		func() { f.remove(f.s.Families()...) },
	} {
		breakIt()
		if !f.sync(want) {
			f.Error("Apply reports no change where something was broken")
		}
		if after := f.dump(); after != before {
			f.Errorf("mended, there is\n%s\ninstead of\n%s", after, before)
		}
	}
}

func applySwitchesSources(f *fixture) {
	f.settle(f.state(f.policy(), f.pod(1)))
	pods := f.dump()
	f.s.Sources = policy.SourcesAll
	f.settle(f.state(f.policy(), f.pod(1)))
	if got := f.observe(); len(got.Pods()) != 0 || got.Tables[0].Root != 1 {
		f.Errorf("with all sources: %+v", got.Tables)
	}
	f.must(f.in(func(ctx context.Context) error {
		return f.backend.Attach(ctx, f.state(f.policy()))
	}), "Attach with all sources")
	f.s.Sources = policy.SourcesPods
	f.settle(f.state(f.policy(), f.pod(1)))
	if after := f.dump(); len(after) != len(pods) { // chains and sets may stand in another order
		f.Errorf("back again, there is\n%s\ninstead of\n%s", after, pods)
	}
}

func applySwitchesIPv6(f *fixture) {
	f.s.IPv6 = false
	f.settle(f.state(f.policy(), f.pod(1)))
	before := f.dump()
	f.s.IPv6 = true
	f.settle(f.state(f.policy(), f.pod(1)))
	f.must(f.verify(f.pod(1)), "Verify with IPv6")
	f.remove(policy.IPv6)
	f.s.IPv6 = false
	if f.sync(f.state(f.policy(), f.pod(1))) {
		f.Error("removing IPv6 took something from IPv4")
	}
	if after := f.dump(); strings.Contains(after, "fd00:244::") || f.isNFT() && after != before {
		f.Errorf("without IPv6 again, there is\n%s\ninstead of\n%s", after, before)
	}
}

func applyMovesChain(f *fixture) {
	f.settle(f.state(f.policy(), f.pod(1)))
	former := f.s
	f.s.Chain = "SOME-OTHER-NAME"
	f.settle(f.state(f.policy(), f.pod(1)))
	now := f.s
	f.s = former
	f.remove(f.s.Families()...)
	f.s = now
	if f.sync(f.state(f.policy(), f.pod(1))) {
		f.Error("removing the former chain took something from the new one")
	}
	f.must(f.verify(f.pod(1)), "Verify")
	for line := range strings.Lines(f.dump()) {
		if strings.Contains(strings.ReplaceAll(line, "ip-masq-agent:", ""), former.Chain) && !strings.Contains(line, "--comment") {
			f.Errorf("left of the former chain: %s", line)
		}
	}
}

func applyTakesSettings(f *fixture) {
	ports := func(text string) policy.PortRanges {
		ranges, err := policy.ParsePortRanges(text)
		f.must(err, "parse ports")
		return ranges
	}
	for _, change := range []func(){
		func() { f.s.RandomFully = false },
		func() { f.s.ToPorts = ports("1024-65535") },
		func() { f.s.ToPorts = ports("1024-29999,32768-49151,61000-61000") },
		func() { f.s.RandomFully = true },
		func() { f.s.ToPorts = nil },
		func() { f.s.Sources, f.s.ToPorts = policy.SourcesAll, ports("1024-2047,4096-65535") },
		func() { f.s.Chain = strings.Repeat("X", policy.MaxChain) },
	} {
		change()
		p := f.policy()
		p.Masquerade = prefixes("10.50.0.0/16")
		f.settle(ruleset.Build(p, nil, ruleset.Node{}))
	}
}

func isTen(p netip.Prefix) bool { return p == netip.MustParsePrefix("10.0.0.0/8") }
