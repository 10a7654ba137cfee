package main

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// foreignRules are rules of other software, with counters, in places where the plugin's are and where they are not.
const foreignRules = `*nat
:KUBE-POSTROUTING - [0:0]
:CNI-abc - [0:0]
:IP-MASQ - [0:0]
:LIKE-IP-MASQ-AGENT - [0:0]
[7:420] -A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
[3:180] -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
[2:120] -A POSTROUTING -m comment --comment "ip-masq-agent: is what this says" -j LIKE-IP-MASQ-AGENT
[1:60] -A PREROUTING -d 203.0.113.1/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.1.0.9:80
[11:660] -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
[5:300] -A CNI-abc -d 10.1.0.0/24 -m comment --comment "name: \"pods\" id: \"a\"" -j ACCEPT
[0:0] -A LIKE-IP-MASQ-AGENT -s 10.1.0.2/32 -j RETURN
COMMIT
*filter
:KUBE-FORWARD - [0:0]
[9:540] -A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
COMMIT
*mangle
:KUBE-KUBELET-CANARY - [0:0]
COMMIT
`

// TestOtherSoftwaresRulesStay: rules and chains of other software are byte-identical after every verb and every resync, counters included.
func TestOtherSoftwaresRulesStay(t *testing.T) {
	eachIPTables(t, func(t *testing.T, v variant) {
		h := newHost(t, v)
		for _, program := range []string{h.iptables(policy.IPv4), h.iptables(policy.IPv6)} {
			script := foreignRules
			if strings.HasPrefix(program, "ip6") {
				script = strings.NewReplacer("172.17.0.0/16", "fd00:17::/64", "203.0.113.1/32", "2001:db8::9/128", "10.1.0.9:80", "[fd00:1::9]:80",
					"10.1.0.0/24", "fd00:1::/64", "10.1.0.2/32", "fd00:1::2/128").Replace(script)
			}
			if r := h.exec(t, netnstest.Cmd{Args: []string{program + "-restore", "--counters"}, Stdin: script}); r.Code != 0 {
				t.Fatal(r.Stderr)
			}
		}
		h.allVerbs(t, func() []string {
			return append(h.foreign(t, policy.IPv4), h.foreign(t, policy.IPv6)...)
		})
	})
}

// allVerbs runs everything that we have and compares what see returns after each.
func (h *host) allVerbs(t *testing.T, see func() []string) {
	t.Helper()
	before := see()
	if len(before) < 3 {
		t.Fatalf("no foreign rules: %q", before)
	}
	a := h.request("ADD", "a", "10.1.0.2", "fd00:1::2").set("enableIPv6", true)
	b := h.request("ADD", "b", "10.1.0.3", "fd00:1::3").set("enableIPv6", true)
	run := func(r *request) func() { return func() { h.must(t, r) } }
	steps := []struct {
		name string
		do   func()
	}{
		{"first ADD", run(a)},
		{"ADD", run(b)},
		{"repeated ADD", run(a)},
		{"CHECK", run(a.as("CHECK"))},
		{"STATUS", run(h.status())},
		{"sync", func() { h.sync(t, "", "--enable-ipv6") }},
		{"sync with another policy", func() { h.sync(t, "nonMasqueradeCIDRs: [10.0.0.0/8]\n", "--enable-ipv6") }},
		{"sync without IPv6", func() { h.sync(t, "", "--enable-ipv6=false") }},
		{"DEL", run(b.as("DEL"))},
		{"DEL again", run(b.as("DEL"))},
		{"GC", run(h.gc("cni.dev/valid-attachments", "[]"))},
	}
	for _, step := range steps {
		step.do()
		if diff := cmp.Diff(before, see()); diff != "" {
			t.Errorf("%s changed, -before +after:\n%s", step.name, diff)
		}
	}
}

var managed = regexp.MustCompile(`^:IP-MASQ-AGENT|-A IP-MASQ-AGENT|-[jg] IP-MASQ-AGENT`)

// foreign are the tables of a family without the chains and rules managed by ip-masq.
func (h *host) foreign(t *testing.T, f policy.Family) (lines []string) {
	t.Helper()
	for line := range strings.Lines(h.Run(t, h.iptables(f)+"-save", "--counters")) {
		if !strings.HasPrefix(line, "#") && !managed.MatchString(line) {
			lines = append(lines, line)
		}
	}
	return lines
}

// natives are rules that iptables-nft 1.8.9 cannot print: -S of their chain fails, and so does -S of the table. Behind those
// that it cannot even decode, -C and -D find nothing, too.
var natives = []struct{ name, rule string }{
	{"not printable", "oifname docker0 counter packets 4 bytes 240 masquerade"},
	{"not decodable", "fib daddr type local counter packets 4 bytes 240 accept"},
	{"unknown key", "meta skuid 1234 counter packets 4 bytes 240 accept"},
}

// TestNativeRule: with such a rule in POSTROUTING, before the root rule or behind, everything works all the same, and the rule stays.
func TestNativeRule(t *testing.T) {
	netnstest.Require(t, "nft", "iptables-nft")
	for _, native := range natives {
		for _, behind := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, behind the root rule %t", native.name, behind), func(t *testing.T) {
				t.Parallel()
				h := newHost(t, testkit.Variants()[0])
				h.nat(t, "-A", "POSTROUTING", "-s", "1.2.3.4", "-j", "ACCEPT")
				if behind {
					h.must(t, h.request("ADD", "before", "10.1.0.9"))
				}
				h.Run(t, "nft", "add rule ip nat POSTROUTING "+native.rule)
				if r := h.exec(t, netnstest.Cmd{Args: []string{"iptables-nft", "-t", "nat", "-S", "POSTROUTING"}}); r.Code == 0 {
					t.Skip("this iptables prints the rule")
				}
				h.allVerbs(t, func() []string { return h.nativeForeign(t) })
				h.wantNative(t)
			})
		}
	}
}

// wantNative attaches one more pod, damages the chain, and wants one root rule and one pod in the end.
func (h *host) wantNative(t *testing.T) {
	t.Helper()
	r := h.request("ADD", "c", "10.1.0.4")
	h.must(t, r)
	h.nat(t, "-F", chain)
	h.do(t, r.as("CHECK")).want(t, 103)
	h.must(t, r)
	h.must(t, r.as("CHECK"))
	h.sync(t, "")
	listing := h.Run(t, "nft", "list", "table", "ip", "nat")
	if n := strings.Count(listing, "jump "+podsChain); n != 1 {
		t.Errorf("%d root rules in\n%s", n, listing)
	}
	if out := h.Run(t, "iptables-nft", "-t", "nat", "-S", podsChain); strings.Count(out, "-A ") != 1 || !strings.Contains(out, "10.1.0.4/32") {
		t.Errorf("the pods' chain is\n%s", out)
	}
	if out := h.Run(t, "iptables-nft", "-t", "nat", "-S", chain); strings.Count(out, "-A ") != 5 {
		t.Errorf("the shared chain is\n%s", out)
	}
}

// nativeForeign are the lines of table nat outside the chains managed by ip-masq.
func (h *host) nativeForeign(t *testing.T) (lines []string) {
	t.Helper()
	inOurs := false
	for line := range strings.Lines(h.Run(t, "nft", "list", "table", "ip", "nat")) {
		text := strings.TrimSpace(line)
		inOurs = inOurs && text != "}" || strings.HasPrefix(text, "chain "+chain)
		if text != "" && text != "}" && !inOurs && !strings.Contains(text, "jump "+chain) {
			lines = append(lines, text)
		}
	}
	return lines
}

// TestManyChainsOfOtherSoftware: five thousand chains of other software cost no process more, and where the kernel can be asked for one chain, they
// are not read. iptables-legacy has only whole tables.
func TestManyChainsOfOtherSoftware(t *testing.T) {
	const many = 5000
	eachIPTables(t, func(t *testing.T, v variant) {
		netnstest.Require(t, "strace")
		quiet, crowded := newHost(t, v), newHost(t, v)
		crowded.restore(t, manyChains(many))
		for _, h := range []*host{quiet, crowded} {
			h.add(t, "a", "10.1.0.2")
		}
		if n, got := crowded.count(t, crowded.request("ADD", "b", "10.1.0.3")); n != 1 {
			t.Errorf("%d processes, want 1: %+v", n, got)
		}
		if v.Name == "legacy" {
			return
		}
		if few, all := quiet.received(t, "c"), crowded.received(t, "c"); all > 2*few {
			t.Errorf("%d bytes from the kernel with %d chains of others, %d without", all, many, few)
		}
		if few, all := quiet.median(t), crowded.median(t); all > 5*few+20*time.Millisecond {
			t.Errorf("an ADD takes %v with %d chains of others, %v without", all, many, few)
		}
	})
}

func manyChains(n int) string {
	var chains, rules strings.Builder
	for i := range n {
		fmt.Fprintf(&chains, ":KUBE-SEP-%05d - [0:0]\n", i)
		fmt.Fprintf(&rules, "-A KUBE-SEP-%05d -s 10.2.%d.%d/32 -m comment --comment service -j ACCEPT\n", i, i/250, i%250)
	}
	return "*nat\n" + chains.String() + rules.String() + "COMMIT\n"
}

var receivedBytes = regexp.MustCompile(`(?m)recv.*= (\d+)$`)

// received counts the bytes that the kernel sends during an ADD, over netlink.
func (h *host) received(t *testing.T, container string) (bytes int) {
	t.Helper()
	trace := filepath.Join(t.TempDir(), "trace")
	c := h.request("ADD", container, "10.1.0.4").command(h)
	c.Args = append([]string{"strace", "-f", "-qq", "-o", trace, "-e", "trace=recvmsg,recvfrom", "--"}, c.Args...)
	if r := h.exec(t, c); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	for _, match := range receivedBytes.FindAllStringSubmatch(string(readFile(t, trace)), -1) {
		n, _ := strconv.Atoi(match[1])
		bytes += n
	}
	if bytes == 0 {
		t.Fatal("strace saw nothing")
	}
	return bytes
}

// median is of the time that an ADD takes.
func (h *host) median(t *testing.T) time.Duration {
	t.Helper()
	var times []time.Duration
	for i := range 9 {
		container, address, _ := member(i)
		times = append(times, h.must(t, h.request("ADD", container, address)).took)
	}
	slices.Sort(times)
	return times[len(times)/2]
}
