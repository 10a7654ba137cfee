package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/status"
)

// toInternet translates what pods send to the outside host to those of the node's addresses that the tests give it.
const toInternet = never + `
egress:
  - destinations: [192.0.2.2/32, "2001:db8::2/128"]
    sourceAddresses: [192.0.2.128/28, "2001:db8::80/124"]
`

// address gives addresses to the node's interface towards the Internet, or takes them from it.
func (r *rig) address(t *testing.T, verb string, addresses ...string) {
	t.Helper()
	for _, address := range addresses {
		bits, flags := "/24", []string{}
		if strings.Contains(address, ":") {
			bits = "/64"
			if verb == "add" {
				flags = []string{"nodad"}
			}
		}
		r.Run(t, append([]string{"ip", "addr", verb, address + bits, "dev", "internet"}, flags...)...)
	}
}

// both are flows of both protocols over both families, by what they are.
func both(t *testing.T, r *rig, p *pod) map[string]*flow {
	t.Helper()
	return map[string]*flow{
		"UDP":           open(t, p.Pod, "udp", udpAt(r.Internet.IPv4)),
		"TCP":           open(t, p.Pod, "tcp", answerLines(t, r.Internet, r.Internet.IPv4)),
		"UDP over IPv6": open(t, p.Pod, "udp", udpAt(r.Internet.IPv6)),
		"TCP over IPv6": open(t, p.Pod, "tcp", answerLines(t, r.Internet, r.Internet.IPv6)),
	}
}

// seenPorts are those that flows are seen with, by what they are.
func seenPorts(t *testing.T, flows map[string]*flow) map[string]string {
	t.Helper()
	ports := map[string]string{}
	for name, f := range flows {
		ports[name] = f.seenPort(t)
	}
	return ports
}

// keepPorts holds that flows go on as they were once the rules have a second address.
func (r *rig) keepPorts(t *testing.T, agent *netnstest.Process, flows map[string]*flow, ports map[string]string) {
	t.Helper()
	r.eventually(t, agent, "the second address in the rules", func() bool { return strings.Contains(r.everything(t), "192.0.2.131") })
	time.Sleep(netnstest.Limit(300 * time.Millisecond)) // what ends connections runs beside the loop
	for name, got := range seenPorts(t, flows) {
		if got != ports[name] {
			t.Errorf("%s: seen as %s, and before the second address came as %s", name, got, ports[name])
		}
	}
}

// TestAddressesComeAndGo: live and new connections have an address of the node's that the policy chooses, as long as it has one, and
// that is so within a second of each change. What has an address that is right keeps it.
func TestAddressesComeAndGo(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		netnstest.Require(t, "conntrack", "ip")
		p := r.attached(t, "a")
		r.Write(t, toInternet)
		agent := r.startReady(t, "--enable-ipv6")
		flows := both(t, r, p)
		// become waits until no connection has a former address, and then until every live flow, and a new one, is seen with an
		// address of its family.
		former := []string{"none"}
		become := func(what, ipv4, ipv6 string) {
			t.Helper()
			took := r.eventually(t, agent, what+": former connections end", func() bool {
				tracked := r.Run(t, "conntrack", "-L", "-s", p.Addrs[0].String()) + r.Run(t, "conntrack", "-L", "-f", "ipv6", "-s", p.Addrs[1].String())
				return !slices.ContainsFunc(former, func(a string) bool { return strings.Contains(tracked, "dst="+a+" ") })
			})
			// A second, unless other programs have the machine; without the notification it would wait for a resync.
			if t.Logf("%s: took %s", what, took); took > netnstest.Limit(10*time.Second) {
				t.Errorf("%s: took %s", what, took)
			}
			former = []string{ipv4, ipv6}
			for name, f := range flows {
				want := ipv4
				if strings.HasSuffix(name, "IPv6") {
					want = ipv6
				}
				r.eventually(t, agent, fmt.Sprintf("%s: %s from %s", what, name, want), func() bool { return f.seen(t) == want })
			}
			for to, want := range map[netip.Addr]string{r.Internet.IPv4: ipv4, r.Internet.IPv6: ipv6} {
				if got := seenAs(p.Pod, to); got != want {
					t.Errorf("%s: a new connection is seen as %s, want %s", what, got, want)
				}
			}
		}
		const primary6 = "2001:db8::1"
		become("before", nodeAddress, primary6)
		if got := r.sample(t, "egress_source_missing"); got != "1" {
			t.Errorf("%q groups without addresses", got)
		}
		r.address(t, "add", "192.0.2.130", "2001:db8::82")
		become("the first address", "192.0.2.130", "2001:db8::82")
		if got := r.sample(t, "egress_source_missing"); got != "0" {
			t.Errorf("%q groups without addresses", got)
		}
		ports := seenPorts(t, flows)
		r.address(t, "add", "192.0.2.131", "2001:db8::83")
		r.keepPorts(t, agent, flows, ports)
		r.address(t, "del", "192.0.2.130", "2001:db8::82")
		become("the other address", "192.0.2.131", "2001:db8::83")
		r.address(t, "del", "192.0.2.131", "2001:db8::83")
		become("none", nodeAddress, primary6)
		// One at the start and one at the end, or one for each family there.
		if n := strings.Count(agent.Output(), "the node has none of the source addresses of an egress group"); n < 2 || n > 3 {
			t.Errorf("%d warnings\n%s", n, agent.Output())
		}
		r.Write(t, toInternet+"    whenMissing: drop\n")
		r.eventually(t, agent, "every connection ended", func() bool {
			return !strings.Contains(r.Run(t, "conntrack", "-L", "-s", p.Addrs[0].String())+r.Run(t, "conntrack", "-L", "-f", "ipv6", "-s", p.Addrs[1].String()), "src=")
		})
		for _, name := range []string{"UDP", "UDP over IPv6"} { // a TCP connection would try for two minutes
			if got := flows[name].seen(t); !strings.Contains(got, "timeout") {
				t.Errorf("%s is seen as %s although the node has no address", name, got)
			}
		}
		r.address(t, "add", "192.0.2.130", "2001:db8::82")
		r.eventually(t, agent, "an address again", func() bool {
			return flows["UDP"].seen(t) == "192.0.2.130" && flows["UDP over IPv6"].seen(t) == "2001:db8::82"
		})
		if strings.Contains(agent.Output(), "repaired") {
			t.Errorf("a change of addresses is taken for a repair\n%s", agent.Output())
		}
	})
}

// everything is what stands of the policy in the kernel, whichever family and chain.
func (r *rig) everything(t *testing.T) string {
	t.Helper()
	if !r.IsIPTables() {
		return r.standing(t)
	}
	return r.Run(t, "iptables", "-w", "-t", "nat", "-S")
}

// TestLostAddressEndsTCP: with --conntrack-flush=udp a TCP connection ends whose address left the node, and no other.
func TestLostAddressEndsTCP(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		netnstest.Require(t, "conntrack", "ip")
		p := r.attached(t, "a")
		r.Write(t, toInternet)
		r.address(t, "add", "192.0.2.130")
		agent := r.startReady(t, "--conntrack-flush=udp", "--enable-ipv6")
		f := open(t, p.Pod, "tcp", answerLines(t, r.Internet, r.Internet.IPv4))
		if got := f.seen(t); got != "192.0.2.130" {
			t.Fatal(got)
		}
		r.address(t, "del", "192.0.2.130")
		r.eventually(t, agent, "the connection has another address", func() bool { return f.seen(t) == nodeAddress })
		port := f.seenPort(t)
		r.address(t, "add", "192.0.2.130")
		r.eventually(t, agent, "the address in the rules", func() bool { return seenAs(p.Pod, r.Internet.IPv4) == "192.0.2.130" })
		time.Sleep(netnstest.Limit(300 * time.Millisecond))
		if got := f.seenPort(t); got != port {
			t.Errorf("the TCP connection of %s is seen as %s", port, got)
		}
	})
}

// TestAddressComesWithoutAgent: what an address changes while no agent runs is made good by the next one. Connections that began without
// the address have it, and those that a pool's other address gave keep theirs.
func TestAddressComesWithoutAgent(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		netnstest.Require(t, "conntrack", "ip")
		p := r.attached(t, "a")
		r.Write(t, toInternet)
		agent := r.startReady(t, "--enable-ipv6")
		flows := both(t, r, p)
		for name, f := range flows {
			if got := f.seen(t); got != nodeAddress && got != "2001:db8::1" {
				t.Fatalf("%s is seen as %s before the node has an address", name, got)
			}
		}
		agent.Stop(syscall.SIGTERM, patience)
		r.address(t, "add", "192.0.2.130", "2001:db8::82")
		agent = r.startReady(t, "--enable-ipv6")
		for name, f := range flows {
			want := "192.0.2.130"
			if strings.HasSuffix(name, "IPv6") {
				want = "2001:db8::82"
			}
			r.eventually(t, agent, name+" from "+want, func() bool { return f.seen(t) == want })
		}
		ports := seenPorts(t, flows)
		agent.Stop(syscall.SIGTERM, patience)
		r.address(t, "add", "192.0.2.131", "2001:db8::83")
		agent = r.startReady(t, "--enable-ipv6")
		r.keepPorts(t, agent, flows, ports)
		if left := r.Run(t, r.Command("cleanup", "--dry-run")...); !strings.Contains(left, "addresses.json") {
			t.Errorf("cleanup leaves the list of addresses:\n%s", left)
		}
	})
}

// TestStatusOfEgress: status has the group's addresses, and check warns while there are none.
func TestStatusOfEgress(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		netnstest.Require(t, "ip")
		r.attached(t, "a")
		r.Write(t, toInternet)
		agent := r.startReady(t, "--enable-ipv6")
		document := func() (s status.Status) {
			t.Helper()
			if err := json.Unmarshal([]byte(r.Run(t, r.Command("status", "--output", "json")...)), &s); err != nil {
				t.Fatal(err)
			}
			return s
		}
		summary := func(s status.Status) string {
			if len(s.Egress) != 1 {
				return fmt.Sprintf("%+v", s.Egress)
			}
			e := s.Egress[0]
			var missing []string
			for _, f := range e.Missing {
				missing = append(missing, f.String())
			}
			return fmt.Sprintf("%d %s %v %v %d %d", e.Group, e.WhenMissing, e.Addresses, missing, *e.Line, len(s.Drift))
		}
		if got, want := summary(document()), "1 masquerade [] [IPv4 IPv6] 4 0"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		check := r.Try(t, r.Command("check")...)
		if !strings.Contains(check.Stdout, "! egress-addresses") {
			t.Errorf("check:\n%s", check.Stdout)
		}
		r.address(t, "add", "192.0.2.130")
		r.eventually(t, agent, "status has the address", func() bool { return summary(document()) == "1 masquerade [192.0.2.130] [IPv6] 4 0" })
		if got := r.Run(t, r.Command("status")...); !strings.Contains(got, "group 1: 192.0.2.130\n") {
			t.Errorf("status:\n%s", got)
		}
	})
}

// TestNoAddressEvents: while nothing is chosen the agent does not listen for addresses, of which every pod brings some.
func TestNoAddressEvents(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		// listeners are the sockets of the node for changes of addresses: of NETLINK_ROUTE (0), in the groups of both families.
		listeners := func() (count int) {
			for line := range strings.Lines(r.Run(t, "cat", "/proc/net/netlink")) {
				if fields := strings.Fields(line); len(fields) > 3 && fields[1] == "0" && fields[3] == "00000110" {
					count++
				}
			}
			return count
		}
		r.Write(t, never)
		agent := r.startReady(t, "--enable-ipv6")
		if got := listeners(); got != 0 {
			t.Errorf("%d sockets listen", got)
		}
		r.Write(t, toInternet)
		r.eventually(t, agent, "listening", func() bool { return listeners() == 1 })
		r.Write(t, never)
		r.eventually(t, agent, "listening no more", func() bool { return listeners() == 0 })
	})
}

// TestEgressAfterReboot: the first pods of a node that was booted again leave with the chosen addresses before any agent runs, and
// the agent finds nothing to change. Where the node has none of them, they are masqueraded.
func TestEgressAfterReboot(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.Write(t, toInternet)
		r.Sync(t, "--enable-ipv6")
		after := newRig(t, r.Variant) // the machine, booted again
		after.DataDir = r.DataDir
		after.address(t, "add", "192.0.2.130")
		p := after.attached(t, "after")
		after.wantSeen(t, p, "192.0.2.130")
		if got := seenAs(p.Pod, after.Internet.IPv6); got != "2001:db8::1" {
			t.Errorf("over IPv6, of which the node has no such address, seen as %s", got)
		}
		before := after.standing(t)
		overwrite(t, after.Config, read(t, r.Config))
		after.Sync(t, "--enable-ipv6")
		if now := after.standing(t); now != before {
			t.Errorf("the agent changed what the plugin had put in place:\n%s\n%s", before, now)
		}
	})
}
