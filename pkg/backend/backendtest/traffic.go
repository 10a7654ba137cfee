package backendtest

import (
	"context"
	"net/netip"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// trafficCounts makes connections of either verdict, in each family another number, and changes and removes the rules in between.
func trafficCounts(f *fixture) {
	f.withNode()
	pod := f.node.AddPod(f.T, "pod")
	p := f.policy()
	f.settle(f.state(p, attachmentOf(pod)))
	var totals backend.Totals
	totals.Begin(f.traffic())
	want := map[backend.Decision]uint64{}
	connect := func(to netip.Addr, verdict policy.Verdict, times int) {
		for range times {
			_, err := pod.Seen("udp", to)
			f.must(err, "udp to "+to.String())
		}
		if family := policy.FamilyOf(to); family == policy.IPv4 || f.s.IPv6 {
			want[backend.Decision{Family: family, Verdict: verdict}] += uint64(times)
		}
	}
	counted := func(when string) {
		totals.Add(f.traffic())
		for _, family := range []policy.Family{policy.IPv4, policy.IPv6} {
			for _, verdict := range []policy.Verdict{policy.Keep, policy.Masquerade} {
				d := backend.Decision{Family: family, Verdict: verdict}
				got := totals.Of(d)
				if got.Packets != want[d] || got.Bytes < 28*got.Packets || got.Bytes > 1500*got.Packets {
					f.Errorf("%s, %s %s: %d packets of %d bytes, want %d packets; now there is\n%s", when, family, verdict, got.Packets, got.Bytes, want[d], f.dump())
				}
			}
		}
	}
	internet, corp := f.node.Internet, f.node.Corp
	connect(internet.IPv4, policy.Masquerade, 1)
	connect(corp.IPv4, policy.Keep, 2)
	connect(internet.IPv6, policy.Masquerade, 3)
	connect(corp.IPv6, policy.Keep, 4)
	counted("at first")
	p.Masquerade = prefixes("10.77.0.0/16") // nobody's traffic
	f.settle(f.state(p, attachmentOf(pod)))
	counted("after a change of the policy")
	connect(corp.IPv4, policy.Keep, 1)
	connect(internet.IPv4, policy.Masquerade, 2)
	counted("under the new policy")
	f.remove(f.s.Families()...)
	counted("without rules")
	f.settle(f.state(p, attachmentOf(pod)))
	connect(internet.IPv4, policy.Masquerade, 1)
	counted("with rules again")
}

// traffic returns what Traffic tells.
func (f *fixture) traffic() (all []backend.Traffic) {
	f.Helper()
	f.must(f.in(func(ctx context.Context) (err error) {
		all, err = f.backend.Traffic(ctx, f.s, true, f.s.Families()...)
		return err
	}), "Traffic")
	return all
}
