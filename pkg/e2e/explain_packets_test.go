package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/explain"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// rounds is how many random policies, pods, destinations and damages explain is held against. IPMASQ_EXPLAIN_ROUNDS and
// IPMASQ_EXPLAIN_SEED are for the search of what a longer run finds.
const rounds = 300

// explainWorld is a node with pods of every sort and destinations in many ranges.
type explainWorld struct {
	*rig
	r *rand.Rand

	pods         []*pod // two attached, one that opted out, one that no plugin has seen
	destinations []netip.Addr

	pod    *pod // that suffers the mishap
	family policy.Family

	policy policy.Policy
	lines  []string // of the config file
}

// TestExplainEqualsPackets: what explain says of a packet is what happens to it, for random policies, pods, destinations and
// damages, and it names what is in the way.
func TestExplainEqualsPackets(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		seed, count := number(t, "IPMASQ_EXPLAIN_SEED", 1), number(t, "IPMASQ_EXPLAIN_ROUNDS", rounds)
		w := newExplainWorld(t, r, seed)
		begin := time.Now()
		seen := map[string]int{}
		for round := range count {
			w.randomPolicy()
			w.write(t)
			w.Sync(t, w.flags()...)
			d := w.damage()
			w.Try(t, "sh", "-c", d.do)
			w.ask(t, fmt.Sprintf("seed %d round %d, %s", seed, round, d), d, seen)
			w.Try(t, "sh", "-c", d.undo)
			if t.Failed() {
				t.FailNow()
			}
		}
		t.Logf("seed %d: %d rounds in %s: %v", seed, count, time.Since(begin).Round(time.Second), seen)
		for _, kind := range []string{"kernel equal", "kernel differs", "verdict keep", "verdict masquerade"} {
			if seen[kind] < count/20 {
				t.Errorf("%q was seen %d times: the rounds are not worth much", kind, seen[kind])
			}
		}
	})
}

func number(t *testing.T, variable string, otherwise int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func newExplainWorld(t *testing.T, r *rig, seed int) *explainWorld {
	t.Helper()
	w := &explainWorld{rig: r, r: rand.New(rand.NewPCG(uint64(seed), 11))}
	out := r.newPod(t, "out")
	w.pods = []*pod{r.attached(t, "a"), r.attached(t, "b"), out, r.newPod(t, "unseen")}
	if got := r.plugin(t, "ADD", out, `"masquerade": false`); got.Code != 0 {
		t.Fatalf("ADD: %s%s", got.Stdout, got.Stderr)
	}
	for _, addr := range []string{"198.51.100.7", "198.51.100.200", "203.0.113.7", "100.64.3.3", "2001:db8:1::7"} {
		w.destinations = append(w.destinations, r.Internet.AddAddr(t, addr))
	}
	for _, addr := range []string{"10.50.0.9", "10.99.7.7", "172.16.5.5", "169.254.7.7", "fd00:98::7", "2001:db8:9::7"} {
		w.destinations = append(w.destinations, r.Corp.AddAddr(t, addr))
	}
	for _, addr := range []string{nodeAddress, "10.99.0.1"} { // the node's own
		r.Serve(t, netip.MustParseAddr(addr))
		w.destinations = append(w.destinations, netip.MustParseAddr(addr))
	}
	w.destinations = append(w.destinations, r.Internet.IPv4, r.Internet.IPv6, r.Corp.IPv4, r.Corp.IPv6)
	return w
}

// randomPolicy draws prefixes around the destinations, of all lengths, for either list.
func (w *explainWorld) randomPolicy() {
	p := policy.Policy{Settings: policy.DefaultSettings()}
	p.Settings.IPv6 = w.r.IntN(3) > 0
	if w.r.IntN(4) == 0 {
		p.Settings.Sources = policy.SourcesAll
	}
	p.MasqLinkLocal = w.r.IntN(4) == 0
	taken := map[netip.Prefix]bool{policy.IPv4.LinkLocal(): true, policy.IPv6.LinkLocal(): true}
	for range w.r.IntN(12) {
		addr := w.destinations[w.r.IntN(len(w.destinations))]
		prefix, _ := addr.Prefix(w.r.IntN(addr.BitLen() + 1))
		if taken[prefix] || addr.Is6() && !p.Settings.IPv6 {
			continue
		}
		taken[prefix] = true
		if w.r.IntN(3) == 0 {
			p.Masquerade = append(p.Masquerade, prefix)
		} else {
			p.NonMasquerade = append(p.NonMasquerade, prefix)
		}
	}
	w.policy = p
}

// write writes the file with one prefix in a line, and puts the defaults in force into the policy.
func (w *explainWorld) write(t *testing.T) {
	t.Helper()
	w.lines = []string{"# a comment", "resyncInterval: 1h", fmt.Sprintf("masqLinkLocal: %t", w.policy.MasqLinkLocal)}
	for _, key := range []struct {
		name     string
		prefixes []netip.Prefix
	}{{"nonMasqueradeCIDRs", w.policy.NonMasquerade}, {"masqueradeCIDRs", w.policy.Masquerade}} {
		w.lines = append(w.lines, key.name+":")
		if len(key.prefixes) == 0 {
			w.lines[len(w.lines)-1] += " []"
		}
		for _, prefix := range key.prefixes {
			w.lines = append(w.lines, fmt.Sprintf("- %q", prefix.String()))
		}
	}
	listed := len(w.policy.NonMasquerade)
	for _, family := range w.policy.Settings.Families() {
		if listed == 0 || slices.ContainsFunc(w.policy.NonMasquerade, func(p netip.Prefix) bool { return policy.FamilyOf(p.Addr()) == family }) {
			continue // [] empties both
		}
		for _, prefix := range policy.DefaultNonMasquerade(family) {
			w.policy.Masquerade = slices.DeleteFunc(w.policy.Masquerade, func(p netip.Prefix) bool { return p == prefix })
			w.lines = slices.DeleteFunc(w.lines, func(line string) bool { return line == fmt.Sprintf("- %q", prefix.String()) })
			w.policy.NonMasquerade = append(w.policy.NonMasquerade, prefix)
		}
	}
	if w.lines[len(w.lines)-1] == "masqueradeCIDRs:" {
		w.lines[len(w.lines)-1] += " []"
	}
	w.Write(t, strings.Join(w.lines, "\n")+"\n")
}

func (w *explainWorld) flags() []string {
	s := w.policy.Settings
	return []string{fmt.Sprintf("--enable-ipv6=%t", s.IPv6), "--sources=" + string(s.Sources), "--conntrack-flush=none"}
}

// mishap is what happens to the node before the question, as shell commands.
type mishap struct {
	name, do, undo string
	other          bool // by a rule of other software, whose effect is not that of ip-masq's rules
	undecided      bool // chance decides what happens to a packet, or which of two tables of one priority was made first
	silent         bool // no packet gets through
}

func (d mishap) String() string { return d.name + ": " + d.do }

func (w *explainWorld) damage() mishap {
	w.pod = w.pods[w.r.IntN(2)]
	if w.r.IntN(4) == 0 {
		w.pod = w.pods[w.r.IntN(len(w.pods))]
	}
	family, addr := "ip", w.pod.Addrs[0]
	if w.family = policy.IPv4; w.r.IntN(3) == 0 {
		family, addr, w.family = "ip6", w.pod.Addrs[1], policy.IPv6
	}
	switch w.r.IntN(5) {
	case 0:
		return mishap{name: "none"}
	case 1, 2:
		return w.foreign(family, addr)
	}
	return w.own(family, addr)
}

// own is a damage to ip-masq's rules.
func (w *explainWorld) own(family string, addr netip.Addr) mishap {
	if !w.IsIPTables() {
		table := "inet ip-masq-agent"
		set := map[string]string{"ip": "pods4", "ip6": "pods6"}[family]
		return []mishap{
			{name: "chain flushed", do: "nft flush chain " + table + " IP-MASQ-AGENT"},
			{name: "root flushed", do: "nft flush chain " + table + " postrouting"},
			{name: "element deleted", do: fmt.Sprintf("nft delete element %s %s { %s }", table, set, addr)},
			{name: "set flushed", do: fmt.Sprintf("nft flush set %s keep%s", table, set[len(set)-1:])},
			{name: "table deleted", do: "nft delete table " + table},
			{name: "rule deleted", do: fmt.Sprintf("h=$(nft -a list chain %s IP-MASQ-AGENT | grep -o 'handle [0-9]*$' | tail -n +2 | sed -n %dp) && nft delete rule %s IP-MASQ-AGENT $h", table, 1+w.r.IntN(4), table)},
		}[w.r.IntN(6)]
	}
	tables := map[string]string{"ip": "iptables", "ip6": "ip6tables"}[family] + " -w -t nat"
	return []mishap{
		{name: "chain flushed", do: tables + " -F IP-MASQ-AGENT"},
		{name: "pods flushed", do: tables + " -F IP-MASQ-AGENT-PODS"},
		{name: "root deleted", do: tables + " -D POSTROUTING 1"},
		{name: "rule deleted", do: fmt.Sprintf("%s -D IP-MASQ-AGENT %d", tables, 1+w.r.IntN(5))},
		{name: "pod deleted", do: fmt.Sprintf("%s -D IP-MASQ-AGENT-PODS %d", tables, 1+w.r.IntN(2))},
	}[w.r.IntN(5)]
}

// foreign is a rule of other software, or a setting of the node.
func (w *explainWorld) foreign(family string, addr netip.Addr) mishap {
	tables, nodeAddr := "iptables", "192.0.2.1"
	if family == "ip6" {
		tables, nodeAddr = "ip6tables", "2001:db8::1"
	}
	insert := func(name, table, chain, rule string) mishap {
		return mishap{
			name: name, other: true, undecided: table == "nat" && !w.IsIPTables(),
			do:   fmt.Sprintf("%s -w -t %s -I %s %s", tables, table, chain, rule),
			undo: fmt.Sprintf("%s -w -t %s -D %s %s", tables, table, chain, rule),
		}
	}
	native := func(name, rule string, priority int) mishap {
		return mishap{
			name: name, other: true,
			do:   fmt.Sprintf("nft 'table %s other { chain c { type nat hook postrouting priority %d; %s; }; }'", family, priority, rule),
			undo: "nft delete table " + family + " other",
		}
	}
	chance := insert("other SNAT by chance", "nat", "POSTROUTING", fmt.Sprintf("-s %s -m statistic --mode random --probability 0.5 -j SNAT --to-source %s", addr, nodeAddr))
	chance.undecided = true
	elsewhere := map[string]string{"ip": "10.99.0.2", "ip6": "fd00:99::2"}[family]
	redirected := insert(redirect, "nat", "PREROUTING", fmt.Sprintf("-s %s -p udp -m udp --dport 7000:8000 -j DNAT --to-destination %s", addr, elsewhere))
	redirected.undecided = true
	// Answers are not tracked either: they would be the first packets of connections, and be masqueraded themselves.
	untracked := insert("no tracking", "raw", "PREROUTING", fmt.Sprintf("-s %s -j CT --notrack", addr))
	for _, chain := range []string{"PREROUTING", "OUTPUT"} {
		untracked.do += fmt.Sprintf(" && %s -w -t raw -A %s -d %s -j CT --notrack", tables, chain, addr)
		untracked.undo += fmt.Sprintf(" && %s -w -t raw -D %s -d %s -j CT --notrack", tables, chain, addr)
	}
	ahead := w.r.IntN(2)*20 + 90 // of ip-masq's own, or behind it
	return []mishap{
		insert("other masquerading", "nat", "POSTROUTING", fmt.Sprintf("-s %s -j MASQUERADE", addr)),
		insert("other SNAT", "nat", "POSTROUTING", fmt.Sprintf("-s %s -j SNAT --to-source %s", addr, nodeAddr)),
		insert("other SNAT of TCP", "nat", "POSTROUTING", fmt.Sprintf("-s %s -p tcp -j SNAT --to-source %s", addr, nodeAddr)),
		insert("other SNAT of UDP", "nat", "POSTROUTING", fmt.Sprintf("-s %s -p udp -m multiport --dports 1:%d -j SNAT --to-source %s", addr, 100+w.r.IntN(60000), nodeAddr)),
		insert("other acceptance", "nat", "POSTROUTING", fmt.Sprintf("-s %s -j ACCEPT", addr)),
		untracked,
		redirected,
		insert("for an interface", "nat", "POSTROUTING", "-o internet -j MASQUERADE"),
		native("other native SNAT", fmt.Sprintf("%s saddr %s snat to %s", family, addr, nodeAddr), ahead),
		native("other native masquerading", fmt.Sprintf("%s saddr %s oifname \"corp\" masquerade", family, addr), ahead),
		native("other native SNAT of UDP", fmt.Sprintf("%s saddr %s udp dport 1-%d snat to %s", family, addr, 100+w.r.IntN(60000), nodeAddr), ahead),
		chance,
		{name: "no forwarding", do: "echo 0 > /proc/sys/net/ipv4/ip_forward", undo: "echo 1 > /proc/sys/net/ipv4/ip_forward", silent: true},
	}[w.r.IntN(12*4+1)/4] // the last one costs the time in which no answer comes, and is rare
}

// redirect is the mishap that sends packets elsewhere.
const redirect = "another destination"

// ask asks about one packet and sends it.
func (w *explainWorld) ask(t *testing.T, name string, d mishap, seen map[string]int) {
	t.Helper()
	p, dst := w.pod, w.destinations[w.r.IntN(len(w.destinations))]
	if w.r.IntN(4) == 0 {
		p = w.pods[w.r.IntN(len(w.pods))]
	}
	for w.r.IntN(4) > 0 && policy.FamilyOf(dst) != w.family {
		dst = w.destinations[w.r.IntN(len(w.destinations))]
	}
	src := p.Addrs[0]
	if dst.Is6() {
		src = p.Addrs[1]
	}
	got := w.Agent(t, "explain", "--src", src.String(), "--dst", netip.AddrPortFrom(dst, netnstest.Port).String(), "--proto", "udp", "--output", "json")
	var a explain.Answer
	decoder := json.NewDecoder(strings.NewReader(got.Stdout))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&a); err != nil || got.Code != 0 || got.Stderr != "" {
		t.Fatalf("%s: exit %d, %v\n%s%s", name, got.Code, err, got.Stdout, got.Stderr)
	}
	local := dst.String() == nodeAddress || dst.String() == "10.99.0.1"
	answered := seenAs(p.Pod, dst)
	fail := func(format string, args ...any) {
		t.Errorf("%s\n%s (%s) -> %s, seen as %s: %s\n%s\n%s\n%s", name, src, p.ContainerID, dst, answered, fmt.Sprintf(format, args...),
			got.Stdout, strings.Join(w.lines, "\n"), w.rules(t))
	}
	if want := w.verdict(p, src, dst, local); a.Verdict != want {
		fail("verdict %s, want %s", a.Verdict, want)
	}
	w.checkPlace(a, fail)
	if d.silent && dst.Is4() && !local {
		if !hasObstacle(a, explain.ForwardingOff) || !strings.Contains(answered, "no answer") {
			fail("no packet is forwarded")
		}
		return
	}
	seen["kernel "+string(a.Kernel)]++
	seen["verdict "+string(a.Verdict)]++
	for _, o := range a.Obstacles {
		seen[string(o.What)]++
	}
	if on := dst.Is4() || w.policy.Settings.IPv6; on && w.policy.Settings.Sources == policy.SourcesPods {
		if hasObstacle(a, explain.OptedOut) != (p.ContainerID == "out") || hasObstacle(a, explain.NotAttached) != (p.ContainerID == "unseen") {
			fail("it is not said why the pod is not masqueraded")
		}
	}
	translated := answered != src.String()
	switch {
	case a.SourceAfter == nil && !d.undecided:
		fail("the source is not known")
	case a.SourceAfter == nil && !hasObstacle(a, explain.OtherNAT) && !hasObstacle(a, explain.Redirected):
		fail("the source is not known, and nothing says why")
	case a.SourceAfter != nil && a.SourceAfter.String() != answered:
		fail("source %s", a.SourceAfter)
	}
	if d.name == redirect && p == w.pod && policy.FamilyOf(dst) == w.family && !hasObstacle(a, explain.Redirected) {
		fail("the packet gets another destination")
	}
	if (a.Verdict == policy.Masquerade) != translated && len(a.Obstacles) == 0 {
		fail("nothing is in the way")
	}
	if d.other {
		return
	}
	if (a.Kernel == explain.Equal) != ((a.Verdict == policy.Masquerade) == translated) || a.Kernel == explain.Unknown {
		fail("kernel %s", a.Kernel)
	}
	if a.Kernel == explain.Equal && translated && a.Rule == nil {
		fail("no rule is named")
	}
}

// verdict is the policy's, found the slow way.
func (w *explainWorld) verdict(p *pod, src, dst netip.Addr, local bool) policy.Verdict {
	s, family := w.policy.Settings, policy.FamilyOf(dst)
	attached := p.ContainerID == "a" || p.ContainerID == "b"
	if family == policy.IPv6 && !s.IPv6 || local || s.Sources == policy.SourcesPods && !attached {
		return policy.Keep
	}
	verdict, longest := policy.Masquerade, -1
	try := func(prefixes []netip.Prefix, v policy.Verdict) {
		for _, prefix := range prefixes {
			if prefix.Contains(dst) && prefix.Bits() > longest {
				verdict, longest = v, prefix.Bits()
			}
		}
	}
	if family == policy.IPv6 || !w.policy.MasqLinkLocal {
		try([]netip.Prefix{family.LinkLocal()}, policy.Keep)
	}
	try(w.policy.NonMasquerade, policy.Keep)
	try(w.policy.Masquerade, policy.Masquerade)
	return verdict
}

// checkPlace holds the line that explain names against the file.
func (w *explainWorld) checkPlace(a explain.Answer, fail func(string, ...any)) {
	switch {
	case a.Prefix == nil:
		if a.File != nil || a.Line != nil || a.Key != nil {
			fail("a place without a prefix")
		}
	case a.Key == nil:
		fail("the prefix has no place")
	case a.Line == nil:
		if !strings.Contains(a.Reason, "default") || slices.Contains(w.lines, fmt.Sprintf("- %q", a.Prefix.String())) {
			fail("the file has the prefix")
		}
	case *a.File != w.Config || w.lines[*a.Line-1] != fmt.Sprintf("- %q", a.Prefix.String()):
		fail("line %d", *a.Line)
	}
}

func hasObstacle(a explain.Answer, what explain.What) bool {
	return slices.ContainsFunc(a.Obstacles, func(o explain.Obstacle) bool { return o.What == what })
}
