package nftables

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// TestFoldCounted: each range has its prefix, as nft prints its comment, or by being that prefix.
func TestFoldCounted(t *testing.T) {
	for _, test := range []struct{ name, destinations, keep, except string }{
		{"none", "", "224.0.0.0/4", ""},
		{"adjacent", "10.0.0.0/9 10.128.0.0/9", "10.0.0.0/9, 10.128.0.0/9, 224.0.0.0/4", ""},
		{"covered", "10.0.0.0/8 10.1.0.0/16", `10.0.0.0/16 of 10.0.0.0/8, 10.1.0.0/16, 10.2.0.0-10.255.255.255 of 10.0.0.0/8, 224.0.0.0/4`, ""},
		{"covered by several", "10.0.0.0/8 10.0.0.0/9 10.0.0.0/10", `10.0.0.0/10, 10.64.0.0/10 of 10.0.0.0/9, 10.128.0.0/9 of 10.0.0.0/8, 224.0.0.0/4`, ""},
		{"wholly covered by halves", "10.0.0.0/8 10.0.0.0/9 10.128.0.0/9", `10.0.0.0/9, 10.128.0.0/9, 224.0.0.0/4`, ""},
		{"exception", "10.5.0.0/16! 10.0.0.0/8", `10.0.0.0-10.4.255.255 of 10.0.0.0/8, 10.6.0.0-10.255.255.255 of 10.0.0.0/8, 224.0.0.0/4`, "10.5.0.0/16"},
		{"exception outside", "11.0.0.0/8! 10.0.0.0/8", "10.0.0.0/8, 224.0.0.0/4", "11.0.0.0/8"},
		{"in an exception", "10.5.1.0/24 10.5.0.0/16!", "10.5.1.0/24, 224.0.0.0/4", "10.5.0.0/24 of 10.5.0.0/16, 10.5.2.0-10.5.255.255 of 10.5.0.0/16"},
		{"exception around multicast", "192.0.0.0/2!", "224.0.0.0/4", "192.0.0.0/3 of 192.0.0.0/2, 240.0.0.0/4 of 192.0.0.0/2"},
		{"the first of equal prefixes", "10.0.0.0/8! 10.0.0.0/8", "224.0.0.0/4", "10.0.0.0/8"},
		{"everything", "0.0.0.0/0", "0.0.0.0-223.255.255.255 of 0.0.0.0/0, 224.0.0.0/4, 240.0.0.0/4 of 0.0.0.0/0", ""},
		{"one address of two", "10.0.0.0/31 10.0.0.1/32!", "10.0.0.0 of 10.0.0.0/31, 224.0.0.0/4", "10.0.0.1"},
		{"IPv6", "fc00::/7 fd00::5/128!", "fc00::-fd00::4 of fc00::/7, fd00::6-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff of fc00::/7, ff00::/8", "fd00::5"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, destinations := parseDestinations(t, test.destinations)
			got := fold(f, destinations, true, countLimit, nil)
			want := folded{counted: true}
			if diff := cmp.Diff([]string{test.keep, test.except}, []string{described(got.keep), described(got.except)}); diff != "" || got.counted != want.counted {
				t.Errorf("counted: %t, -want +got:\n%s", got.counted, diff)
			}
			for _, m := range append(got.keep, got.except...) {
				if d := decisionOf(setOf(keepSets(f)[0], f), m); !d.prefix.Contains(m.first) || !d.prefix.Contains(m.last) {
					t.Errorf("%s is counted for %s", m.text(false), d.prefix)
				}
			}
			sum := len(got.keep) + len(got.except)
			if fold(f, destinations, true, sum-1, nil).counted || !fold(f, destinations, true, sum, nil).counted {
				t.Errorf("the limit is not at the %d ranges that there are", sum)
			}
		})
	}
}

func described(members []member) string {
	texts := make([]string, len(members))
	for i, m := range members {
		texts[i] = strings.TrimSuffix(strings.Replace(m.text(false), ` comment "`, " of ", 1), `"`)
	}
	return strings.Join(texts, ", ")
}

// uncounted is the state of a release that does not count.
func uncounted(state ruleset.State) func() *reading {
	return func() *reading { return after(aim(state, &reading{}, InPlace, -1)) }
}

// TestPlanCounting: ranges begin and cease to be counted in the other set, whatever the way of changes, while pods stay where they are.
func TestPlanCounting(t *testing.T) {
	defaults, exceptions, egress := goldenStates["default"](), goldenStates["exceptions"](), goldenStates["egress"]()
	egress.Tables = egress.Tables[:1]
	counted := func(state ruleset.State) func() *reading {
		return func() *reading { return after(aim(state, &reading{}, InPlace, countLimit)) }
	}
	for _, test := range []struct {
		name       string
		got        func() *reading
		want       ruleset.State
		limit      int
		fill, use  []string
		last, kind string
	}{
		{"an upgrade", uncounted(defaults), defaults, countLimit, []string{"create set keep4.b", "add to set keep4.b"}, []string{
			"add rule to IP-MASQ-AGENT: ip daddr @keep4.b counter return", "delete rule from IP-MASQ-AGENT", "delete set keep4",
		}, "keep4.b", "counted"},
		{"an upgrade with exceptions", uncounted(exceptions), exceptions, countLimit, []string{
			"create set masquerade4", "create set keep4.b", "add to set masquerade4", "add to set keep4.b",
		}, []string{
			"add rule to IP-MASQ-AGENT: ip daddr @keep4.b counter return", "add rule to IP-MASQ-AGENT: ip daddr @masquerade4",
			"delete rule from IP-MASQ-AGENT", "delete set keep4",
		}, "keep4.b", "counted"},
		{"beyond the limit", counted(exceptions), exceptions, 5, []string{"create set keep4.b", "add to set keep4.b"}, []string{
			"add rule to IP-MASQ-AGENT: ip daddr @keep4.b counter return", "delete rule from IP-MASQ-AGENT", "delete rule from IP-MASQ-AGENT",
			"delete set keep4", "delete set masquerade4",
		}, "keep4.b", "not counted"},
		{"an upgrade with groups", uncounted(egress), egress, countLimit, []string{
			"create set masquerade4", "create set verdicts4.b", "add to set masquerade4", "add to set verdicts4.b",
		}, []string{
			"add rule to IP-MASQ-AGENT: ip daddr vmap @verdicts4.b", "add rule to IP-MASQ-AGENT: ip daddr @masquerade4", "delete rule from IP-MASQ-AGENT",
		}, "verdicts4.b", "counted"},
	} {
		for _, way := range []changes{InPlace, SecondSet} {
			t.Run(fmt.Sprintf("%s, %s", test.name, way), func(t *testing.T) {
				got := test.got()
				target := aim(test.want, got, way, test.limit)
				p := plans(target, got)
				if diff := cmp.Diff([][]string{test.fill, test.use}, [][]string{steps(p.fill), steps(p.use)}); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				last := target.sets[len(target.sets)-1]
				if kind := map[bool]string{true: "counted", false: "not counted"}[last.Counted]; last.Name != test.last || kind != test.kind {
					t.Errorf("%s, %s", last.Name, kind)
				}
				settled := after(target)
				if again := plans(aim(test.want, settled, way, test.limit), settled); !again.fill.Empty() || !again.use.Empty() {
					t.Errorf("not settled: %q %q", again.fill.Steps(), again.use.Steps())
				}
			})
		}
	}
}

// TestPlanMendsUncounted: what is not in use is made anew under its name, and rules that hold it go with it; the rule in use has its verdicts
// all the time.
func TestPlanMendsUncounted(t *testing.T) {
	exceptions := goldenStates["exceptions"]()
	got := after(aim(exceptions, &reading{}, InPlace, countLimit))
	left := got.sets["keep4"]
	left.Name, left.Counted = "keep4.b", false
	got.sets[left.Name] = left
	foreign := got.sets["masquerade4"]
	foreign.Counted = false
	got.sets[foreign.Name] = foreign
	fewer := exceptions
	fewer.Tables = []ruleset.Table{exceptions.Tables[0]}
	fewer.Tables[0].Destinations = exceptions.Tables[0].Destinations[:4]
	p := plans(aim(fewer, got, SecondSet, countLimit), got)
	want := []string{"delete rule from IP-MASQ-AGENT", "delete set masquerade4", "create set masquerade4", "delete set keep4.b", "create set keep4.b", "add to set masquerade4", "add to set keep4.b"}
	if diff := cmp.Diff(want, steps(p.fill)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestPrefixCountsGoOn: what a prefix has counted is there behind every change of the others, in either way of changes: with an exception
// inside it, without, with an egress group, which moves it from set to map, and after a repair of its ranges.
func TestPrefixCountsGoOn(t *testing.T) {
	for _, way := range []changes{InPlace, SecondSet} {
		t.Run(string(way), func(t *testing.T) { prefixCountsGoOn(t, way) })
	}
}

func prefixCountsGoOn(t *testing.T, way changes) {
	netnstest.Require(t, "nft")
	before(t, 7, "does not count elements")
	host := netnstest.NewNode(t)
	pod := host.AddPod(t, "pod", "10.244.0.5")
	n := node{host.Space, NewWith(way), t}
	n.KeepCounts()
	to := map[string]netip.Addr{}
	for _, text := range []string{"10.20.0.9", "10.50.0.9", "10.60.0.9", "20.0.0.9"} {
		to[text] = host.Corp.AddAddr(t, text)
	}
	a := attachment.Attachment{Owner: attachment.Owner{Network: "net", ContainerID: "pod", IfName: "eth0"}, Addresses: pod.Addrs}
	sync := func(change func(*policy.Policy)) {
		t.Helper()
		p := policy.Default(policy.DefaultSettings())
		p.NonMasquerade = prefixes("10.0.0.0/8", "172.16.0.0/12")
		p.Masquerade = prefixes("10.50.0.0/16")
		change(&p)
		n.sync(ruleset.Build(p, []attachment.Attachment{a}, ruleset.Node{Addresses: addresses("192.0.2.1")}))
	}
	send := func(text string, times int) {
		t.Helper()
		for range times {
			if _, err := pod.Seen("udp", to[text]); err != nil {
				t.Fatal(err)
			}
		}
	}
	counted := func(when string, want map[string]uint64) {
		t.Helper()
		got := map[string]uint64{}
		err := n.Do(func() error {
			counters, err := n.Counters(context.Background(), policy.DefaultSettings(), policy.IPv4)
			for _, c := range counters {
				if c.Packets > 0 && c.Prefix.IsValid() {
					got[c.Prefix.String()+" "+string(c.Verdict)] += c.Packets
				}
			}
			return err
		})
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v, -want +got:\n%s\n%s", when, err, diff, n.Run(t, "nft", "list", "table", "inet", tableName))
		}
	}
	same := func(*policy.Policy) {}
	sync(same)
	send("10.20.0.9", 2)
	send("10.50.0.9", 3)
	send("20.0.0.9", 5)
	want := map[string]uint64{"10.0.0.0/8 keep": 2, "10.50.0.0/16 masquerade": 3}
	counted("at first", want)
	sync(func(p *policy.Policy) { p.NonMasquerade = append(p.NonMasquerade, prefixes("192.0.2.0/24")...) })
	counted("with another prefix", want)
	sync(func(p *policy.Policy) {
		p.Masquerade = append(p.Masquerade, prefixes("10.20.128.0/17", "10.50.7.0/24")...)
	})
	counted("with exceptions inside", want)
	sync(func(p *policy.Policy) {
		p.Egress = []policy.Egress{{Destinations: prefixes("20.0.0.0/8"), SourceAddresses: prefixes("192.0.2.1/32")}}
	})
	counted("with an egress group", want)
	send("20.0.0.9", 4)
	want["20.0.0.0/8 translate"] = 4
	counted("with an egress group", want)
	sync(same)
	delete(want, "20.0.0.0/8 translate")
	counted("as at first", want)
	n.Run(t, "nft", "add rule inet ip-masq-agent IP-MASQ-AGENT drop")
	sync(same)
	counted("after a repair", want)
	var totals backend.Totals
	add := func() {
		t.Helper()
		err := n.Do(func() error {
			reading, err := n.Traffic(context.Background(), policy.DefaultSettings(), true, policy.IPv4)
			totals.Add(reading)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	send("10.60.0.9", 2) // in the range behind the exception
	add()
	n.Run(t, "sh", "-c", "nft delete element inet ip-masq-agent $(nft list table inet ip-masq-agent | grep -o 'keep4[.b]*' | head -1) { 10.51.0.0-10.255.255.255 }")
	sync(same)
	add()
	send("10.20.0.9", 1)
	add()
	want["10.0.0.0/8 keep"]++
	counted("after a range was deleted, whose count is lost", want)
	if got := totals.Of(backend.Decision{Family: policy.IPv4, Verdict: policy.Keep, Prefix: prefixes("10.0.0.0/8")[0]}).Packets; got != want["10.0.0.0/8 keep"]+2 {
		t.Errorf("in all %d packets, want %d", got, want["10.0.0.0/8 keep"]+2)
	}
	sync(func(p *policy.Policy) { p.Masquerade = nil })
	delete(want, "10.50.0.0/16 masquerade")
	counted("without an exception", want)
	sync(func(p *policy.Policy) {
		p.NonMasquerade, p.Masquerade = prefixes("172.16.0.0/12"), prefixes("10.0.0.0/8")
	})
	counted("with another verdict", map[string]uint64{})
	sync(func(p *policy.Policy) {
		for i := range countLimit {
			p.NonMasquerade = append(p.NonMasquerade, netip.PrefixFrom(netip.AddrFrom4([4]byte{30, byte(i >> 8), byte(i), 1}), 32))
		}
	})
	send("10.20.0.9", 1)
	counted("with too many", map[string]uint64{})
	sync(same)
	send("10.20.0.9", 1)
	counted("with few again", map[string]uint64{"10.0.0.0/8 keep": 1})
}

// TestOlderReleaseAddsElements: an element that is added without a counter, as an older release's programs and nft do it, has one.
func TestOlderReleaseAddsElements(t *testing.T) {
	netnstest.Require(t, "nft")
	before(t, 7, "does not count elements")
	n := newNode(t)
	n.sync(goldenStates["default"]())
	n.Run(t, "nft", "add element inet ip-masq-agent keep4 { 8.8.8.0/24 }")
	if list := n.Run(t, "nft", "list", "set", "inet", tableName, "keep4"); !strings.Contains(list, "8.8.8.0/24 counter packets 0 bytes 0") {
		t.Errorf("it is not counted:\n%s", list)
	}
	n.sync(goldenStates["default"]())
	n.holds(golden(t, "default"))
}

// TestUpgradeOfCounting goes from each golden state as a release without counters leaves it to each, and back.
func TestUpgradeOfCounting(t *testing.T) {
	netnstest.Require(t, "nft")
	before(t, 7, "does not count elements")
	for _, way := range []changes{InPlace, SecondSet} {
		n := newNode(t)
		for _, from := range goldenStates {
			for name, to := range goldenStates {
				n.Backend = &Backend{changes: way, limit: -1}
				n.sync(from())
				n.Backend = &Backend{changes: way, limit: countLimit}
				n.sync(to())
				n.holds(golden(t, name))
			}
		}
	}
}
