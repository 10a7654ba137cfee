package explain

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/iptables"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/nftables"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// TestModelEqualsPackets: what policy.Decide says of random policies, nodes, pods and packets is what happens to a packet of a real
// kernel, and what Explain says of it.
func TestModelEqualsPackets(t *testing.T) {
	testkit.Each(t, testkit.Variants(), func(t *testing.T, v testkit.Variant) {
		const count = 300
		k := newKernelWorld(t, v)
		seen := map[string]int{}
		k.eachCase(t, count, func(c modelCase) {
			k.place(t, &c)
			want := c.policy.Decide(c.packet, c.addresses)
			seen[string(want.Cause)+" "+string(want.Verdict)]++
			k.apply(t, c)
			got, port := k.send(c, want.Verdict == policy.Drop)
			answer := k.explain(t, c)
			if got != k.expected(c, want) || !c.allowsPort(want, port) {
				t.Errorf("policy.Decide says %s, the packet is seen from %q, port %d", want, got, port)
			}
			if complaint := k.disagrees(c, want, answer); complaint != "" {
				t.Errorf("policy.Decide says %s, Explain: %s\n%+v", want, complaint, answer)
			}
			if t.Failed() {
				t.Logf("%s\n%s", c, k.rules(t))
			}
		})
		t.Log(seen)
		for _, what := range []string{
			"family keep", "source keep", "local keep", "interface keep", "prefix keep", "prefix masquerade", "prefix translate",
			"default masquerade", "annotation translate", "whenMissing masquerade", "whenMissing drop",
		} {
			if seen[what] < 2 && number(t, "IPMASQ_MODEL_CASE", count) == count {
				t.Errorf("%q is rare", what)
			}
		}
	})
}

// TestExplainOfDamagedRules: whatever somebody deletes of the rules, Explain says what they do now with a packet, and whether that is
// what the policy says.
func TestExplainOfDamagedRules(t *testing.T) {
	testkit.Each(t, testkit.Variants(), func(t *testing.T, v testkit.Variant) {
		const count = 200
		k := newKernelWorld(t, v)
		seen := map[Comparison]int{}
		k.eachCase(t, count, func(c modelCase) {
			k.place(t, &c)
			want := c.policy.Decide(c.packet, c.addresses)
			if k.spaces[c.packet.Source] == nil || want.Verdict == policy.Keep && want.Cause != policy.ByPrefix { // nothing to damage
				return
			}
			k.apply(t, c)
			damage := k.damage(t, rand.New(rand.NewPCG(c.chance, 8)), policy.FamilyOf(c.packet.Destination))
			a := k.explain(t, c)
			seen[a.Kernel]++
			expected := ""
			if a.SourceAfter != nil {
				expected = a.SourceAfter.String()
			}
			got, _ := k.send(c, expected == "")
			right := k.expected(c, want)
			if got != expected || (got == right) != (a.Kernel == Equal) || a.Kernel == Unknown {
				t.Errorf("seen from %q, the policy says %q, Explain %q, %s\n%+v\n%s\n%s\n%s", got, right, expected, a.Kernel, a, damage, c, k.rules(t))
			}
		})
		t.Log(seen)
		if (seen[Equal] < 10 || seen[Differs] < 10) && number(t, "IPMASQ_MODEL_CASE", count) == count {
			t.Errorf("too few rounds are worth something: %v", seen)
		}
	})
}

// damage deletes three rules that ip-masq manages, or all of a chain, set or map, where packets of the family come.
func (k *kernelWorld) damage(t *testing.T, r *rand.Rand, family policy.Family) (done []string) {
	t.Helper()
	for range 3 {
		commands := k.deletions(t, family) // of one place each
		if len(commands) == 0 {
			break
		}
		places := slices.Sorted(maps.Keys(commands))
		command := oneOf(r, commands[oneOf(r, places)])
		k.Run(t, strings.Fields(command)...)
		done = append(done, command)
	}
	return done
}

// deletions are commands by the chain, set or map that they change.
func (k *kernelWorld) deletions(t *testing.T, family policy.Family) map[string][]string {
	t.Helper()
	commands, place := map[string][]string{}, ""
	if k.v.IsIPTables() {
		program := map[policy.Family]string{policy.IPv4: "iptables", policy.IPv6: "ip6tables"}[family]
		for line := range strings.Lines(k.Run(t, program, "-t", "nat", "-S")) {
			if words := strings.Fields(line); words[0] == "-A" {
				place = words[1]
				if len(commands[place]) == 0 {
					commands[place] = []string{fmt.Sprintf("%s -t nat -F %s", program, place)}
				}
				commands[place] = append(commands[place], fmt.Sprintf("%s -t nat -D %s %d", program, place, len(commands[place])))
			}
		}
		return commands
	}
	for line := range strings.Lines(k.Run(t, "nft", "-a", "list", "table", "inet", "ip-masq-agent")) {
		words := strings.Fields(line)
		switch {
		case len(words) > 2 && slices.Contains([]string{"set", "map", "chain"}, words[0]):
			place = words[1]
			commands[place] = []string{fmt.Sprintf("nft flush %s inet ip-masq-agent %s", words[0], place)}
		case len(words) > 2 && words[len(words)-2] == "handle" && words[0] != "table":
			commands[place] = append(commands[place], fmt.Sprintf("nft delete rule inet ip-masq-agent %s handle %s", place, words[len(words)-1]))
		}
	}
	return commands
}

// kernelWorld is a node with pods, and two hosts with addresses in many ranges.
type kernelWorld struct {
	world
	*netnstest.Node
	v       testkit.Variant
	b       backend.Backend
	spaces  map[netip.Addr]*netnstest.Space // who sends from an address
	outputs map[netip.Addr]string           // by which interface a destination is reached, "" where it is the node's own
	primary map[string][2]netip.Addr        // the addresses with which masquerading works, by interface
}

func newKernelWorld(t *testing.T, v testkit.Variant) *kernelWorld {
	t.Helper()
	t.Setenv("XTABLES_LOCKFILE", filepath.Join(t.TempDir(), "xtables.lock"))
	k := &kernelWorld{Node: netnstest.NewNode(t), v: v, spaces: map[netip.Addr]*netnstest.Space{}, outputs: map[netip.Addr]string{}}
	k.SetPATH(v.Path(t))
	if k.b = nftables.New(); v.IsIPTables() {
		k.b = iptables.New(v.Kind, "")
	}
	k.primary = map[string][2]netip.Addr{
		"internet": [2]netip.Addr(addrs("192.0.2.1", "2001:db8::1")), "corp": [2]netip.Addr(addrs("10.99.0.1", "fd00:99::1")),
	}
	for name, host := range map[string]*netnstest.Host{"internet": k.Internet, "corp": k.Corp} {
		k.outputs[host.IPv4], k.outputs[host.IPv6] = name, name
		for _, addr := range map[string][]string{
			"internet": {"198.51.100.7", "203.0.113.7", "2001:db8:1::7"}, "corp": {"10.50.0.9", "172.16.5.5", "fd00:98::7"},
		}[name] {
			k.outputs[host.AddAddr(t, addr)] = name
		}
	}
	k.world = world{
		sources:  cidrs("198.18.0.0/24", "198.18.0.0/30", "198.18.0.5/32", "198.19.0.1/32", "203.0.113.0/24", "fd00:18::/64", "fd00:18::/126", "fd00:19::1/128", "fd00:20::/64"),
		patterns: []string{"internet", "inter*", "corp", "co*", "nosuch0", "!internet", "!corp", "!cor*", "!nosuch*"},
	}
	for i := range 7 {
		k.node = append(k.node, addrs(fmt.Sprintf("198.18.0.%d", i+1), fmt.Sprintf("fd00:18::%x", i+1))...)
	}
	k.node = append(k.node, addrs("198.19.0.1", "fd00:19::1")...)
	for _, addr := range k.node {
		k.Run(t, "ip", "addr", "add", netip.PrefixFrom(addr, addr.BitLen()).String(), "dev", "lo")
	}
	for _, addr := range addrs("192.0.2.1", "198.18.0.1", "fd00:99::1") {
		k.Serve(t, addr)
		k.outputs[addr] = ""
	}
	for addr := range k.outputs {
		k.destinations = append(k.destinations, addr)
	}
	slices.SortFunc(k.destinations, netip.Addr.Compare)
	k.interfaces = []string{""} // the route says which
	for i := range 5 {
		p := k.AddPod(t, fmt.Sprint("p", i))
		for _, addr := range p.Addrs {
			k.spaces[addr] = p.Space
		}
		if i == 4 {
			k.others = [2]netip.Addr(p.Addrs)
		} else {
			k.pods = append(k.pods, pod{fmt.Sprint("p", i), p.Addrs, i == 3})
		}
	}
	return k
}

// place makes the case one of this node: the interface is what the route says, and some packets are the node's own.
func (k *kernelWorld) place(t *testing.T, c *modelCase) {
	t.Helper()
	c.packet.Output = k.outputs[c.packet.Destination]
	c.packet.Local = c.packet.Output == ""
	c.protocol = map[bool]string{true: "tcp", false: "udp"}[c.protocol == "tcp"]
	if c.packet.Source == k.others[0] && !c.packet.Local && len(c.attachments)%2 == len(c.policy.NonMasquerade)%2 {
		conn, err := k.DialContext(t.Context(), "udp", netip.AddrPortFrom(c.packet.Destination, netnstest.Port).String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		c.packet.Source = netip.MustParseAddrPort(conn.LocalAddr().String()).Addr()
	}
}

// apply gives the kernel the state, and lets it forget the connections of the case before: a port that is used again would meet
// its verdict.
func (k *kernelWorld) apply(t *testing.T, c modelCase) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), netnstest.Limit(20*time.Second))
	defer cancel()
	err := k.Do(func() error {
		want := c.state()
		got, err := k.b.Observe(ctx, want.Settings, policy.IPv4, policy.IPv6)
		if err != nil {
			return err
		}
		if !c.policy.Settings.IPv6 { // as the agent does
			if err := k.b.Remove(ctx, want.Settings, policy.IPv6); err != nil {
				return err
			}
			if got, err = k.b.Observe(ctx, want.Settings, policy.IPv4); err != nil {
				return err
			}
		}
		if _, err := k.b.Apply(ctx, got, want); err != nil {
			return err
		}
		return netlink.ConntrackTableFlush(netlink.ConntrackTable)
	})
	if err != nil {
		t.Fatalf("%s\n%s", err, c)
	}
}

// send sends a packet and returns the source that the destination saw, which is nothing where no answer came.
func (k *kernelWorld) send(c modelCase, mayDrop bool) (source string, port uint16) {
	from := k.spaces[c.packet.Source]
	if from == nil {
		from = k.Space
	}
	if mayDrop { // what is dropped costs the whole wait
		ctx, cancel := context.WithTimeout(context.Background(), 250*time.Millisecond)
		defer cancel()
		conn, err := from.DialContext(ctx, c.protocol, netip.AddrPortFrom(c.packet.Destination, netnstest.Port).String())
		if err != nil {
			return "", 0
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(250 * time.Millisecond))
		answer := make([]byte, 64)
		_, err = conn.Write([]byte("who am I?"))
		if n, errRead := conn.Read(answer); err == nil && errRead == nil {
			return string(answer[:n]), 0
		}
		return "", 0
	}
	seen, err := from.Seen(c.protocol, c.packet.Destination)
	if err != nil {
		return err.Error(), 0
	}
	return seen.Addr().String(), seen.Port()
}

// expected is the source that the destination sees.
func (k *kernelWorld) expected(c modelCase, want policy.Outcome) string {
	family := map[bool]int{true: 0, false: 1}[c.packet.Destination.Is4()]
	switch want.Verdict {
	case policy.Drop:
		return ""
	case policy.Masquerade:
		return k.primary[c.packet.Output][family].String()
	case policy.Translate:
		return want.Address.String()
	case policy.Keep:
	}
	return c.packet.Source.String()
}

// allowsPort reports whether a connection that is translated has one of the ports that the settings leave.
func (c modelCase) allowsPort(want policy.Outcome, port uint16) bool {
	ranges := c.policy.Settings.ToPorts
	return len(ranges) == 0 || want.Verdict == policy.Keep || want.Verdict == policy.Drop ||
		slices.ContainsFunc(ranges, func(r policy.PortRange) bool { return r.First <= port && port <= r.Last })
}

// explain asks the package itself.
func (k *kernelWorld) explain(t *testing.T, c modelCase) (answer Answer) {
	t.Helper()
	n := Node{
		Policy: c.policy, Attachments: c.attachments, OptedOut: c.optedOut, Addresses: c.addresses, Backend: k.b,
		Features: backend.Features{RandomFully: true},
	}
	q := Question{Source: c.packet.Source, Destination: c.packet.Destination, Port: netnstest.Port, Protocol: c.protocol}
	err := k.Do(func() (err error) {
		answer, err = n.Explain(t.Context(), q)
		return err
	})
	if err != nil {
		t.Fatalf("%s\n%s", err, c)
	}
	return answer
}

// disagrees says what is wrong with an answer.
func (k *kernelWorld) disagrees(c modelCase, want policy.Outcome, a Answer) string {
	source := k.expected(c, want)
	switch {
	case a.Verdict != want.Verdict || a.Cause != want.Cause:
		return fmt.Sprintf("%s %s", a.Verdict, a.Cause)
	case a.Kernel != Equal:
		return fmt.Sprintf("the kernel: %s", a.Kernel)
	case source == "" && (a.SourceAfter != nil || a.Interface != nil):
		return "it leaves the node"
	case source != "" && (a.SourceAfter == nil || a.SourceAfter.String() != source):
		return fmt.Sprintf("another source than %s", source)
	case source != "" && !c.packet.Local && (a.Interface == nil || *a.Interface != c.packet.Output):
		return fmt.Sprintf("another interface than %s", c.packet.Output)
	case want.Group > 0 && (a.Group == nil || *a.Group != want.Group):
		return "another group"
	case want.Verdict == policy.Translate && !slices.Contains(a.Pool, want.Address):
		return "a pool without the address"
	case (want.Cause == policy.ByWhenMissing) != (a.WhenMissing != nil):
		return "whenMissing"
	case want.Verdict != policy.Keep && a.Rule == nil:
		return "no rule"
	case a.Rule != nil && a.Counter.Packets == 0 && len(c.policy.Settings.ToPorts) == 0: // with several ranges chance decides
		return "another rule than the one that counts the packet"
	}
	return ""
}

// rules are those that the kernel holds.
func (k *kernelWorld) rules(t *testing.T) string {
	t.Helper()
	if k.v.IsIPTables() {
		return k.Run(t, "sh", "-c", "iptables -t nat -S; ip6tables -t nat -S")
	}
	return k.Run(t, "nft", "list", "ruleset")
}
