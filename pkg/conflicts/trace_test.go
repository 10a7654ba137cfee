package conflicts

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// agentRules are those of the iptables backend, of one pod.
const agentRules = `
-A POSTROUTING -c 7 700 -m comment --comment "ip-masq-agent: pods" -j IP-MASQ-AGENT-PODS
-A IP-MASQ-AGENT-PODS -c 7 700 -s 10.244.0.5/32 ! -d 224.0.0.0/4 -m comment --comment "ipmasq v1 0 pods" -g IP-MASQ-AGENT
-A IP-MASQ-AGENT -c 3 300 -d 10.0.0.0/8 -m addrtype ! --dst-type LOCAL -j RETURN
-A IP-MASQ-AGENT -c 4 400 -m addrtype ! --dst-type LOCAL -j MASQUERADE --random-fully
`

// groupRules lead to an egress group with two addresses.
const groupRules = `
-A POSTROUTING -m comment --comment "ip-masq-agent: pods" -j IP-MASQ-AGENT-PODS
-A IP-MASQ-AGENT-PODS ! -d 224.0.0.0/4 -g IP-MASQ-AGENT
-A IP-MASQ-AGENT -d 198.51.100.0/24 -m addrtype ! --dst-type LOCAL -g IP-MASQ-AGENT-E1
-A IP-MASQ-AGENT -m addrtype ! --dst-type LOCAL -j MASQUERADE --random-fully
-A IP-MASQ-AGENT-E1 -c 1 100 -s 0.0.0.1/0.0.0.1 -j SNAT --to-source 192.0.2.2 --random-fully
-A IP-MASQ-AGENT-E1 -c 1 100 -j SNAT --to-source 192.0.2.3 --random-fully
`

// group is a packet to the egress group.
func group(pod byte) Packet {
	return Packet{Source: netip.AddrFrom4([4]byte{10, 244, 0, pod}), Destination: netip.MustParseAddr("198.51.100.9")}
}

// TestFollow: the ends of one packet in a base chain, with the rule that decides, and what ip-masq's rules alone would do.
func TestFollow(t *testing.T) {
	udp := Packet{Source: netip.MustParseAddr("10.244.0.5"), Destination: netip.MustParseAddr("192.0.2.7"), Protocol: unix.IPPROTO_UDP, Port: 53}
	inside, stranger, any := udp, udp, udp
	inside.Destination = netip.MustParseAddr("10.9.9.9")
	stranger.Source = netip.MustParseAddr("10.244.0.9")
	any.Protocol, any.Port = 0, 0
	multicast := udp
	multicast.Destination = netip.MustParseAddr("239.1.2.3")
	for _, test := range []struct {
		name, rules   string
		packet        Packet
		ends, managed []string
	}{
		{"masqueraded", agentRules, udp, []string{"masquerades, ip-masq, IP-MASQ-AGENT 2, 4"}, []string{"masquerades, ip-masq, IP-MASQ-AGENT 2, 4"}},
		{"kept", agentRules, inside, []string{"passes, ip-masq, IP-MASQ-AGENT 1, 3"}, []string{"passes, ip-masq, IP-MASQ-AGENT 1, 3"}},
		{"no pod of ours", agentRules, stranger, []string{"passes"}, []string{"passes"}},
		{"multicast", agentRules, multicast, []string{"passes"}, []string{"passes"}},
		{"no rules", "", udp, []string{"passes"}, nil},
		{
			"drained", strings.ReplaceAll(agentRules, "-A IP-MASQ-AGENT -c", "-A GONE -c"), udp,
			[]string{"passes"},
			[]string{"passes"},
		},
		{
			"another program's address", "-A POSTROUTING -s 10.244.0.0/24 -j SNAT --to-source 192.0.2.9" + agentRules, udp,
			[]string{"translates 192.0.2.9, unknown, POSTROUTING 1"},
			[]string{"masquerades, ip-masq, IP-MASQ-AGENT 2, 4"},
		},
		{
			"behind ours", agentRules + "-A POSTROUTING -s 10.244.0.0/24 -j SNAT --to-source 192.0.2.9-192.0.2.11", inside,
			[]string{"translates, unknown, POSTROUTING 2"},
			[]string{"passes, ip-masq, IP-MASQ-AGENT 1, 3"},
		},
		{
			"accepted ahead", "-A POSTROUTING -j X\n-A X -d 192.0.2.0/24 -j ACCEPT" + agentRules, udp,
			[]string{"passes, unknown, X 1, exempts"},
			[]string{"masquerades, ip-masq, IP-MASQ-AGENT 2, 4"},
		},
		{
			"for another protocol", "-A POSTROUTING -p tcp -m tcp --dport 53 -j SNAT --to-source 192.0.2.9" + agentRules, udp,
			[]string{"masquerades, ip-masq, IP-MASQ-AGENT 2, 4"},
			[]string{"masquerades, ip-masq, IP-MASQ-AGENT 2, 4"},
		},
		{
			"for its port", "-A POSTROUTING -p udp -m multiport --dports 1:9,53 -j SNAT --to-source 192.0.2.9" + agentRules, udp,
			[]string{"translates 192.0.2.9, unknown, POSTROUTING 1"},
			[]string{"masquerades, ip-masq, IP-MASQ-AGENT 2, 4"},
		},
		{
			"but for its port", "-A POSTROUTING -p udp -m udp ! --dport 53 -j SNAT --to-source 192.0.2.9" + agentRules, udp,
			[]string{"masquerades, ip-masq, IP-MASQ-AGENT 2, 4"},
			[]string{"masquerades, ip-masq, IP-MASQ-AGENT 2, 4"},
		},
		{
			"for a protocol that is not asked about", "-A POSTROUTING -p tcp -j SNAT --to-source 192.0.2.9" + agentRules, any,
			[]string{"translates 192.0.2.9, unknown, POSTROUTING 1", "masquerades, ip-masq, IP-MASQ-AGENT 2, 4"},
			[]string{"masquerades, ip-masq, IP-MASQ-AGENT 2, 4"},
		},
		{
			"not understood", "-A POSTROUTING -m bpf --bytecode 1 -j ACCEPT" + agentRules, udp,
			[]string{"passes, unknown, POSTROUTING 1, exempts", "masquerades, ip-masq, IP-MASQ-AGENT 2, 4"},
			[]string{"masquerades, ip-masq, IP-MASQ-AGENT 2, 4"},
		},
		{
			"chance", strings.Replace(agentRules, "-A IP-MASQ-AGENT -c 4", "-A IP-MASQ-AGENT -c 1 1 -p udp -m statistic --mode random --probability 0.5 -j MASQUERADE --to-ports 1-2\n-A IP-MASQ-AGENT -c 4", 1), udp,
			[]string{"masquerades, ip-masq, IP-MASQ-AGENT 2, 1", "masquerades, ip-masq, IP-MASQ-AGENT 3, 4"},
			[]string{"masquerades, ip-masq, IP-MASQ-AGENT 2, 1", "masquerades, ip-masq, IP-MASQ-AGENT 3, 4"},
		},
		{
			"a pool of source addresses", groupRules, group(5),
			[]string{"translates 192.0.2.2, ip-masq, IP-MASQ-AGENT-E1 1, 1"},
			[]string{"translates 192.0.2.2, ip-masq, IP-MASQ-AGENT-E1 1, 1"},
		},
		{
			"another one of the pool", groupRules, group(6),
			[]string{"translates 192.0.2.3, ip-masq, IP-MASQ-AGENT-E1 2, 1"},
			[]string{"translates 192.0.2.3, ip-masq, IP-MASQ-AGENT-E1 2, 1"},
		},
		{
			"a group that drops", strings.Replace(groupRules, "-s 0.0.0.1/0.0.0.1 -j SNAT --to-source 192.0.2.2", "-j NFQUEUE --queue-num 65535", 1), group(5),
			[]string{"drops, ip-masq, IP-MASQ-AGENT-E1 1, 1"},
			[]string{"drops, ip-masq, IP-MASQ-AGENT-E1 1, 1"},
		},
		{"a queue of other software", "-A POSTROUTING -d 192.0.2.0/24 -j NFQUEUE --queue-num 0" + agentRules, udp, []string{"unknown, unknown, POSTROUTING 1"}, []string{"masquerades, ip-masq, IP-MASQ-AGENT 2, 4"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			q := query()
			q.OwnChains = []string{policy.DefaultChain, policy.DefaultChain + "-PODS"}
			b := parse(test.rules).base(policy.IPv4)
			rules, err := b.read(t.Context(), b.chain)
			if err != nil {
				t.Fatal(err)
			}
			step := b.step(t.Context(), q, fakeNode{}, test.packet, rules, nil)
			if diff := cmp.Diff(test.ends, texts(step.Ends)); diff != "" {
				t.Errorf("ends (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.managed, texts(step.Managed)); diff != "" {
				t.Errorf("managed (-want +got):\n%s", diff)
			}
		})
	}
}

func texts(ends []End) []string {
	var all []string
	for _, e := range ends {
		words := []string{strings.TrimSuffix(fmt.Sprintf("%s %s", e.Effect, e.Address), " invalid IP")}
		switch {
		case e.Managed:
			words = append(words, "ip-masq")
		case e.Owner != "":
			words = append(words, e.Owner)
		}
		if e.Where != "" {
			words = append(words, strings.Replace(strings.TrimPrefix(e.Where, "iptables-nft table nat chain "), " rule ", " ", 1))
		}
		if e.Packets != 0 {
			words = append(words, fmt.Sprint(e.Packets))
		}
		if e.Exempts() {
			words = append(words, "exempts")
		}
		all = append(all, strings.Join(words, ", "))
	}
	return slices.Clip(all)
}

// TestFollowGivesUp: chains that call each other without an end, and what cannot be read, are unknown.
func TestFollowGivesUp(t *testing.T) {
	b := parse("-A POSTROUTING -j X\n-A X -j Y\n-A Y -j X").base(policy.IPv4)
	rules, _ := b.read(t.Context(), b.chain)
	for _, err := range []error{nil, unix.EPERM} {
		ends := b.step(t.Context(), query(), fakeNode{}, Packet{Source: addrs("10.244.0.5")[0], Destination: addrs("192.0.2.7")[0]}, rules, err).Ends
		if !slices.ContainsFunc(ends, func(e End) bool { return e.Effect == Unknown }) {
			t.Errorf("with %v: %v", err, texts(ends))
		}
	}
}

// TestFollowServices: of what kube-proxy writes in either mode, a packet to a service gets another destination, and one to
// anybody else does not.
func TestFollowServices(t *testing.T) {
	for _, test := range []struct {
		ruleset   string
		load      []string
		service   Packet
		strangers []Packet
	}{
		{
			"kube-proxy.iptables",
			[]string{"iptables-nft-restore"},
			packet("10.96.0.10", unix.IPPROTO_UDP, 53),
			[]Packet{packet("10.96.0.10", unix.IPPROTO_UDP, 54), packet("10.96.0.10", unix.IPPROTO_SCTP, 53), packet("10.96.0.11", unix.IPPROTO_UDP, 53), packet("192.0.2.2", 0, 0)},
		},
		{
			"kube-proxy.iptables",
			[]string{"iptables-legacy-restore"},
			packet("10.96.0.10", unix.IPPROTO_UDP, 53),
			[]Packet{packet("10.96.0.10", unix.IPPROTO_UDP, 54), packet("10.96.0.11", unix.IPPROTO_UDP, 53), packet("192.0.2.2", 0, 0)},
		},
		{
			"kube-proxy-1.36.nft",
			[]string{"nft", "-f", "-"},
			packet("10.96.0.1", unix.IPPROTO_TCP, 443),
			[]Packet{packet("10.96.0.1", unix.IPPROTO_TCP, 444), packet("10.96.0.1", unix.IPPROTO_UDP, 443), packet("10.96.0.2", unix.IPPROTO_TCP, 443), packet("192.0.2.2", 0, 0)},
		},
	} {
		t.Run(test.ruleset+"/"+test.load[0], func(t *testing.T) {
			netnstest.Require(t, test.load[0])
			needsNFT(t, test.ruleset)
			s := newScene(t, backend.IPTablesNFT)
			load(t, s.Space, readRulesets(t, test.ruleset)[0].text, test.load...)
			redirects := func(p Packet) (redirects, all int) {
				p.Source = s.pod.Addrs[0]
				var steps []Step
				if err := s.Do(func() (err error) {
					steps, err = Follow(t.Context(), s.query(), p)
					return err
				}); err != nil {
					t.Fatal(err)
				}
				for _, step := range steps {
					for _, end := range step.Ends {
						if step.BeforeRouting && end.Effect != Passes {
							redirects++
						}
						all++
					}
				}
				return redirects, all
			}
			if n, _ := redirects(test.service); n == 0 {
				t.Error("the service's packet keeps its destination")
			}
			for _, p := range test.strangers {
				if n, all := redirects(p); n != 0 || all == 0 {
					t.Errorf("%+v: %d of %d ends give it another destination", p, n, all)
				}
			}
		})
	}
}

func packet(to string, protocol uint8, port uint16) Packet {
	return Packet{Destination: netip.MustParseAddr(to), Protocol: protocol, Port: port}
}

// wantDestination fails where a packet of the pod would get another destination.
func (s *scene) wantDestination(t *testing.T, to netip.Addr) {
	t.Helper()
	var steps []Step
	if err := s.Do(func() (err error) {
		steps, err = Follow(t.Context(), s.query(), Packet{Source: s.pod.Addrs[0], Destination: to})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, step := range steps {
		if step.BeforeRouting && slices.ContainsFunc(step.Ends, func(e End) bool { return e.Effect != Passes }) {
			t.Errorf("a packet to %s gets another destination: %q", to, texts(step.Ends))
		}
	}
}
