package conflicts

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// written is a condition or action as both languages have it; empty where one has not.
type written struct{ xt, nft string }

// conditions tell apart what the packets of TestAgainstPackets differ in, and nothing else.
var conditions = []written{
	{"", ""},
	{"-s 10.244.0.0/16", "ip saddr 10.244.0.0/16"},
	{"-s 10.244.0.2/32", "ip saddr 10.244.0.2"},
	{"! -s 10.244.0.0/16", "ip saddr != 10.244.0.0/16"},
	{"-s 10.88.0.0/16", "ip saddr 10.88.0.0/16"},
	{"-s 0.0.0.1/128.0.0.1", "ip saddr & 128.0.0.1 == 0.0.0.1"}, // iptables-nft 1.8.7 takes no mask that begins with eight zeros
	{"! -s 10.0.0.2/255.0.0.7", "ip saddr & 255.0.0.7 != 10.0.0.2"},
	{"-m iprange --src-range 10.244.0.1-10.244.0.9", "ip saddr 10.244.0.1-10.244.0.9"},
	{"-m iprange ! --src-range 10.244.0.1-10.244.255.9", "ip saddr != 10.244.0.1-10.244.255.9"},
	{"-m iprange --src-range 10.88.0.1-10.88.0.9", "ip saddr { 10.88.0.0/24, 10.89.0.1 }"},
	{"", "ip saddr { 10.88.0.0/24, 10.245.0.0/16 }"},
	{"", "ip saddr != { 10.244.0.0/15, 10.89.0.1 }"},
	{"-d 10.0.0.0/8", "ip daddr 10.0.0.0/8"},
	{"! -d 10.0.0.0/8", "ip daddr != 10.0.0.0/8"},
	{"-d 198.51.100.0/24", "ip daddr 198.51.100.0/24"},
	{"! -d 198.51.100.0/24", "ip daddr != 198.51.100.0/24"},
	{"-d 203.0.113.0/24", "ip daddr 203.0.113.0-203.0.113.255"},
	{"-m iprange --dst-range 10.99.0.0-10.99.0.255", "ip daddr 10.99.0.0-10.99.0.255"},
	{"! -d 128.0.0.0/1", "ip daddr != { 128.0.0.0/1 }"},
	{"", "ip daddr { 10.99.0.0/24, 198.51.100.0/24 }"},
	{"", "ip daddr != { 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 169.254.0.0/16 }"},
	{"-m set --match-set mine src", "ip saddr @mine"},
	{"-m set ! --match-set mine src", "ip saddr != @mine"},
	{"-m set --match-set others src", "ip saddr . ip daddr { 10.244.0.2 . 10.99.0.0/24, 10.245.0.3 . 198.51.100.0/24 }"},
	{"-m set --match-set inside dst", "ip daddr @inside"},
	{"-m set ! --match-set inside dst", "ip daddr != @inside"},
	{"-m set --match-set large dst", "meta l4proto . ip daddr { tcp . 10.99.0.0/24, udp . 192.0.2.0/24 }"},
	{"-m set --match-set large src", "oifname . ip saddr { \"corp\" . 10.244.0.2, \"internet\" . 10.245.0.3 }"},
	{"-o corp", `oifname "corp"`},
	{"! -o corp", `oifname != "corp"`},
	{"-o inter+", `oifname "inter*"`},
	{"-o nosuch0", `oifname "nosuch0"`},
	{"! -o nosuch0", `oifname != "nosuch0"`},
	{"-o docker0", `oif "docker0"`},
	{"-o pod1", `oifname "pod1"`},
	{"-o lo", `oifname "lo"`},
	{"", `iifname "pod1"`},
	{"", `iifname != "pod1"`},
	{"", `iifname "docker0"`},
	{"", `oifname { "corp", "nosuch0" }`},
	{"-p tcp", "meta l4proto tcp"},
	{"-p udp -m udp --dport 7777", "udp dport 7777"},
	{"-m mark --mark 0x4000/0x4000", "meta mark & 0x4000 == 0x4000"},
	{"-m mark ! --mark 0x4000/0x4000", "meta mark & 0x4000 == 0"},
	{"-m mark --mark 0x7", "meta mark 7"},
	{"-m addrtype --dst-type LOCAL", "fib daddr type local"},
	{"-m addrtype ! --dst-type LOCAL", "fib daddr type != local"},
	{"-m addrtype ! --src-type LOCAL --limit-iface-out", "fib saddr . oif type != local"},
	{"-m addrtype --dst-type UNICAST", "fib daddr type { unicast, anycast }"},
	{"-m conntrack --ctstate NEW", "ct state new"},
	{"-m conntrack ! --ctstate NEW,RELATED", "ct state established,related"},
	{"-m conntrack --ctstate DNAT", "ct status dnat"},
	{"-m conntrack ! --ctstatus EXPECTED", "ct status & dnat == 0"},
	{"-m connmark --mark 0x1/0x1", "ct mark 1"},
	{"-m policy --dir out --pol none", "meta protocol ip"},
	{"-m policy --dir out --pol ipsec", "meta protocol ip6"},
}

var actions = []written{
	{"-j MASQUERADE", "masquerade"},
	{"-j MASQUERADE --random-fully", "masquerade fully-random"},
	{"-j SNAT --to-source 192.0.2.1", "snat to 192.0.2.1"},
	{"-j ACCEPT", "accept"},
	{"-j RETURN", "return"},
	{"-j MARK --set-xmark 0x4000/0x4000", "meta mark set meta mark | 0x4000"},
	{"-j MARK --set-xmark 0x7/0xffffffff", "meta mark set 7"},
	{"-j A", "jump A"},
	{"-g A", "goto A"},
	{"-j B", "jump B"},
	{"-j LOG", "counter"},
	{"", `oifname vmap { "corp" : jump A, "internet" : accept }`},
	{"", `ip saddr vmap { 10.244.0.0/24 : goto B, 10.245.0.0/16 : jump A }`},
	{"", `ip daddr vmap { 10.99.0.0/24 : jump B, 198.51.100.0/24 : return }`},
	{"", `ip daddr . meta l4proto vmap { 10.99.0.0/24 . udp : jump A, 192.0.2.0/24 . tcp : accept }`},
	{"", "ip saddr . ip daddr vmap @pairs"},
	{"", `snat to ip saddr map { 10.245.0.3 : 10.99.0.1 }`},
	{"", `snat to ip saddr & 0.0.0.1 map { 0.0.0.0 : 10.99.0.1, 0.0.0.1 : 192.0.2.1 }`},
	{"", `snat to ip daddr map { 10.0.0.0/8 : 10.99.0.1, 198.51.100.0/24 : 192.0.2.1 }`},
}

// pick picks one that the language has.
func pick(r *rand.Rand, from []written, native bool) string {
	for {
		w := from[r.IntN(len(from))]
		text := w.xt
		if native {
			text = w.nft
		}
		if text != "" || w == (written{}) {
			return text
		}
	}
}

// randomRules are rules of one or two conditions.
func randomRules(r *rand.Rand, native bool, atMost int, without ...string) (rules []string) {
	for range r.IntN(atMost + 1) {
		rule := pick(r, conditions, native)
		if r.IntN(3) == 0 {
			if second := pick(r, conditions, native); option(second) != option(rule) {
				rule += " " + second
			}
		}
		action := pick(r, actions, native)
		for slices.ContainsFunc(without, func(w string) bool { return strings.Contains(action, w) }) {
			action = pick(r, actions, native)
		}
		rules = append(rules, strings.TrimSpace(rule+" "+action))
	}
	return rules
}

// option is the beginning of a condition that iptables takes once.
func option(condition string) string {
	words := strings.Fields(strings.TrimPrefix(condition, "! "))
	if len(words) == 0 || words[0] == "-m" {
		return condition
	}
	return words[0]
}

// cases is how many random rulesets each kind is tried with. IPMASQ_RULESETS asks for more.
func cases(t *testing.T) int {
	if text := os.Getenv("IPMASQ_RULESETS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("IPMASQ_RULESETS: %v", err)
		}
		return n
	}
	return 60
}

// testField is a node with two pods and destinations of every kind that the conditions speak of.
type testField struct {
	*scene
	pods         []*netnstest.Pod
	kept, others []netip.Addr
	root         string // the agent's root rule
}

func newTestField(t *testing.T, kind backend.Kind) *testField {
	s := newScene(t, kind)
	f := &testField{scene: s, pods: []*netnstest.Pod{s.pod, s.AddPod(t, "b", "10.245.0.3")}}
	s.also = f.pods[1].Addrs
	f.kept = []netip.Addr{s.Corp.IPv4, s.Corp.AddAddr(t, "10.1.1.1"), s.Corp.AddAddr(t, "172.16.5.5"), s.Internet.AddAddr(t, "192.168.7.7")}
	f.others = []netip.Addr{s.Internet.IPv4, s.Internet.AddAddr(t, "198.51.100.7"), s.Corp.AddAddr(t, "203.0.113.9"), s.Corp.AddAddr(t, "11.1.1.1"), s.Internet.AddAddr(t, "130.1.1.1")}
	s.Run(t, "ip", "link", "add", "docker0", "type", "bridge")
	for _, pod := range f.pods {
		pod.Serve(t, pod.Addrs[0])
	}
	s.ipset(t, "mine", "10.244.0.0/16", "10.90.0.0/16")
	s.ipset(t, "others", "10.88.0.0/16", "10.89.0.1/32")
	s.ipset(t, "inside", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16")
	s.ipset(t, "large", largeSet()...)
	s.ours(t)
	for line := range strings.Lines(s.Run(t, string(kind), "-t", "nat", "-S", "POSTROUTING")) {
		if strings.Contains(line, "-PODS") {
			f.root = strings.TrimSpace(line)
		}
	}
	return f
}

// largeSet has more members than are listed; none of them is a destination or a pod of the test.
func largeSet() []string {
	var members []string
	for i := range maxMembers + 100 {
		members = append(members, fmt.Sprintf("100.64.%d.%d/32", i>>8, i&0xff))
	}
	return members
}

// contradicted reports whether any packet meets another fate than the policy's.
func (f *testField) contradicted(t *testing.T, ruleset string) (which []string) {
	t.Helper()
	for _, pod := range f.pods {
		neighbours := []netip.Addr{f.pods[0].Addrs[0], f.pods[1].Addrs[0]}
		kept := slices.DeleteFunc(slices.Concat(f.kept, neighbours), func(to netip.Addr) bool { return to == pod.Addrs[0] })
		for i, to := range slices.Concat(kept, f.others) {
			for _, protocol := range []string{"udp", "tcp"} {
				seen, err := pod.Seen(protocol, to)
				if err != nil {
					t.Fatalf("%s from %s to %s: %v\n%s", protocol, pod.Addrs[0], to, err, ruleset)
				}
				own := slices.Contains(pod.Addrs, seen.Addr())
				if own != (i < len(kept)) {
					which = append(which, fmt.Sprintf("%s %s to %s seen as %s", protocol, pod.Addrs[0], to, seen.Addr()))
				}
			}
		}
	}
	return which
}

// judge compares what is found with what packets show.
func (f *testField) judge(t *testing.T, seed int, ruleset string) {
	t.Helper()
	f.forget(t)
	found := mustFind(t, f.Space, f.query())
	shown := f.contradicted(t, ruleset)
	if len(found) > 0 != (len(shown) > 0) {
		t.Errorf("ruleset %d:\n%s\nfound %s\npackets: %s", seed, ruleset, rulesOf(found), strings.Join(shown, "\n         "))
	}
}

// forget ends all tracked connections: a port that is used again would meet the verdict of a ruleset before.
func (s *scene) forget(t *testing.T) {
	t.Helper()
	if err := s.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }); err != nil {
		t.Fatalf("flush connection tracking: %v", err)
	}
}

func rulesOf(found []Conflict) (rules []string) {
	for _, c := range found {
		rules = append(rules, c.Where+": "+c.Rule)
	}
	return rules
}

// TestAgainstPackets has random rules ahead of and behind the agent's, and holds the answer against the packets of two pods to
// kept and masqueraded destinations by several interfaces.
func TestAgainstPackets(t *testing.T) {
	eachVariant(t, func(t *testing.T, s *scene) {
		f := newTestField(t, s.kind)
		for seed := range cases(t) {
			r := rand.New(rand.NewPCG(uint64(seed), 1))
			var b strings.Builder
			b.WriteString("*nat\n:A -\n:B -\n-F POSTROUTING\n-A B -j MASQUERADE\n")
			add := func(chain string, rules []string) {
				for _, rule := range rules {
					b.WriteString("-A " + chain + " " + rule + "\n")
				}
			}
			// Where packets are not tracked nothing else is tried: answers would be translated that no request was.
			untracked := r.IntN(8) == 0
			if !untracked {
				add("A", randomRules(r, false, 2, " A", " B"))
				add("POSTROUTING", randomRules(r, false, 2))
			}
			b.WriteString(f.root + "\n")
			if !untracked {
				add("POSTROUTING", randomRules(r, false, 2))
			}
			b.WriteString("COMMIT\n*raw\n-F PREROUTING\n")
			if untracked {
				add("PREROUTING", []string{[]string{"-s 10.244.0.0/16", "-d 192.168.0.0/16", "-i docker0", "-i pod1 ! -d 10.0.0.0/8", "-s 10.88.0.0/16"}[r.IntN(5)] + " -j CT --notrack"})
			}
			b.WriteString("COMMIT\n")
			load(t, f.Space, b.String(), string(s.kind)+"-restore", "--noflush")
			f.judge(t, seed, b.String())
		}
	})
}

// TestNativeAgainstPackets is TestAgainstPackets with native rules in a table of their own, ahead of or behind the agent's.
func TestNativeAgainstPackets(t *testing.T) {
	netnstest.RequireNFT(t, 0, 1, "crashes on a range in an anonymous map of concatenations")
	f := newTestField(t, backend.IPTablesNFT)
	for seed := range cases(t) {
		r := rand.New(rand.NewPCG(uint64(seed), 2))
		chain := func(name, hook string, rules []string) string {
			return "chain " + name + " { " + hook + strings.Join(rules, "\n") + "\n}\n"
		}
		hook := fmt.Sprintf("type nat hook postrouting priority %d\n", []int{90, 110}[r.IntN(2)])
		ruleset := "table ip x {\n" +
			"set mine { type ipv4_addr; flags interval; elements = { 10.244.0.0/16, 10.90.0.0/16 }\n}\n" +
			"set inside { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 169.254.0.0/16 }\n}\n" +
			"map pairs { type ipv4_addr . ipv4_addr : verdict; flags interval; elements = { 10.244.0.0/24 . 10.99.0.0/24 : jump B, 10.245.0.3 . 0.0.0.0/0 : return }\n}\n" +
			chain("B", "", []string{"masquerade"}) +
			chain("A", "", randomRules(r, true, 2, "jump", "goto", "vmap")) +
			chain("y", hook, randomRules(r, true, 3))
		if r.IntN(8) == 0 {
			ruleset = "table ip x {\nset mine { type ipv4_addr; flags interval; elements = { 10.244.0.0/16, 10.90.0.0/16 }\n}\n" +
				"set inside { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 172.16.0.0/12 }\n}\n" + chain("z", "type filter hook prerouting priority raw\n", []string{
				[]string{"ip saddr @mine", "iifname docker0", "ip daddr != @inside", "ip saddr . ip daddr { 10.244.0.2 . 198.51.100.0/24 }"}[r.IntN(4)] + " notrack",
			})
		}
		ruleset += "}\n"
		load(t, f.Space, "table ip x { }\ndelete table ip x\n"+ruleset, "nft", "-f", "-")
		f.judge(t, seed, ruleset)
	}
}
