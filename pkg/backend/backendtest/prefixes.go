package backendtest

import (
	"net/netip"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// countedPolicy has prefixes of every kind, and destinations with the prefix that decides about each.
func countedPolicy(f *fixture) (p policy.Policy, deciding map[string]policy.Destination) {
	p = f.policy()
	p.NonMasquerade = prefixes("10.0.0.0/9", "10.128.0.0/9", "10.50.1.0/24", "172.16.0.0/12")
	p.Masquerade = prefixes("10.50.0.0/16")
	deciding = map[string]policy.Destination{
		"10.20.0.9":   {Prefix: p.NonMasquerade[0], Verdict: policy.Keep},
		"10.127.0.9":  {Prefix: p.NonMasquerade[0], Verdict: policy.Keep}, // behind the exception
		"10.128.0.9":  {Prefix: p.NonMasquerade[1], Verdict: policy.Keep},
		"10.50.1.9":   {Prefix: p.NonMasquerade[2], Verdict: policy.Keep},
		"172.16.5.9":  {Prefix: p.NonMasquerade[3], Verdict: policy.Keep},
		"10.50.0.9":   {Prefix: p.Masquerade[0], Verdict: policy.Masquerade},
		"10.50.255.9": {Prefix: p.Masquerade[0], Verdict: policy.Masquerade},
		"203.0.113.9": {},
	}
	if f.s.IPv6 {
		p.NonMasquerade = append(p.NonMasquerade, prefixes("fd00::/8", "fd00:77::/32")...)
		p.Masquerade = append(p.Masquerade, prefixes("fd00:77:1::/48")...)
		deciding["fd00:98::9"] = policy.Destination{Prefix: p.NonMasquerade[4], Verdict: policy.Keep}
		deciding["fd00:77:2::9"] = policy.Destination{Prefix: p.NonMasquerade[5], Verdict: policy.Keep}
		deciding["fd00:77:1::9"] = policy.Destination{Prefix: p.Masquerade[1], Verdict: policy.Masquerade}
	}
	return p, deciding
}

// prefixesCount makes connections to destinations that different prefixes decide about: adjacent ones, one inside another, exceptions, and
// one inside an exception. Each prefix must have exactly its own, whatever becomes of the rules in between.
func prefixesCount(f *fixture) {
	f.withNode()
	pod := f.node.AddPod(f.T, "pod")
	p, deciding := countedPolicy(f)
	hosts := map[string]netip.Addr{}
	for text := range deciding {
		hosts[text] = f.node.Corp.AddAddr(f.T, text)
		for range 4 { // IPv6 neighbours may not answer at once
			if _, err := pod.Seen("udp", hosts[text]); err == nil {
				break
			}
		}
	}
	f.settle(f.state(p, attachmentOf(pod)))
	var totals backend.Totals
	totals.Begin(f.traffic())
	want := map[backend.Decision]uint64{}
	for _, d := range deciding {
		if d.Prefix.IsValid() {
			want[backend.Decision{Family: policy.FamilyOf(d.Prefix.Addr()), Verdict: d.Verdict, Prefix: d.Prefix}] = 0
		}
	}
	connect := func(text string, times int) {
		f.Helper()
		for range times {
			_, err := pod.Seen("udp", hosts[text])
			f.must(err, "udp to "+text)
		}
		if d := deciding[text]; d.Prefix.IsValid() {
			want[backend.Decision{Family: policy.FamilyOf(d.Prefix.Addr()), Verdict: d.Verdict, Prefix: d.Prefix}] += uint64(times)
		}
	}
	counted := func(when string) {
		f.Helper()
		totals.Add(f.traffic())
		for d, packets := range want {
			got, there := totals.All()[d]
			if !there || got.Packets != packets || got.Bytes < 28*packets || got.Bytes > 1500*packets {
				f.Errorf("%s, %s %s: %d packets of %d bytes (%t), want %d packets; now there is\n%s", when, d.Prefix, d.Verdict, got.Packets, got.Bytes, there, packets, f.dump())
			}
		}
	}
	counted("at first")
	times := 1
	for text := range deciding {
		connect(text, times)
		times++
	}
	counted("with connections")
	f.countersTell(want)
	f.settle(f.state(p, attachmentOf(pod)))
	counted("after a resync")
	p.NonMasquerade = append(p.NonMasquerade, prefixes("198.18.0.0/15")...)
	f.settle(f.state(p, attachmentOf(pod)))
	counted("with another prefix")
	p.Masquerade = append(p.Masquerade, prefixes("10.60.0.0/16")...)
	f.settle(f.state(p, attachmentOf(pod)))
	counted("with an exception in one of them")
	connect("10.20.0.9", 2)
	connect("10.127.0.9", 1)
	connect("10.50.0.9", 1)
	counted("with more connections")
	p.Masquerade = p.Masquerade[:len(p.Masquerade)-1]
	p.NonMasquerade = p.NonMasquerade[:len(p.NonMasquerade)-1]
	f.settle(f.state(p, attachmentOf(pod)))
	counted("under the former policy")
	f.remove(f.s.Families()...)
	counted("without rules")
	f.settle(f.state(p, attachmentOf(pod)))
	connect("10.50.1.9", 3)
	counted("with rules again")
}

// countersTell compares the same with what Counters tells.
func (f *fixture) countersTell(want map[backend.Decision]uint64) {
	f.Helper()
	got := map[backend.Decision]uint64{}
	for _, family := range f.s.Families() {
		for _, c := range f.counters(family) {
			got[backend.Decision{Family: family, Verdict: c.Verdict, Prefix: c.Prefix}] += c.Packets
		}
	}
	for d, packets := range want {
		if got[d] != packets {
			f.Errorf("Counters tells %d packets for %s %s, want %d", got[d], d.Prefix, d.Verdict, packets)
		}
	}
}
