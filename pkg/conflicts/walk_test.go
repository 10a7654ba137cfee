package conflicts

import (
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

func TestWalk(t *testing.T) {
	for _, test := range walkTests {
		t.Run(test.name, test.run)
	}
}

const root = `-A POSTROUTING -m comment --comment "ip-masq-agent: pods" -j IP-MASQ-AGENT-PODS`

func withEgress(q *Query) {
	q.Policy.Egress = []policy.Egress{{Destinations: prefixes("198.51.100.0/24", "10.7.0.0/16"), SourceAddresses: prefixes("192.0.2.0/24")}}
}

var walkTests = []walkTest{
	{name: "nothing", rules: root},
	{name: "an older agent's chain is ours", rules: `-A POSTROUTING -m addrtype ! --dst-type LOCAL -j IP-MASQ-AGENT
-A IP-MASQ-AGENT -j MASQUERADE`},
	{name: "a further chain is ours", rules: "-A POSTROUTING -j FORMER\n-A FORMER -j MASQUERADE", change: func(q *Query) { q.OwnChains = []string{"FORMER"} }},
	{name: "plain", rules: "-A POSTROUTING -o eth0 -j MASQUERADE", want: []string{"unknown: POSTROUTING 1"}},
	{name: "plain SNAT", rules: root + "\n-A POSTROUTING -p tcp -j SNAT --to-source 192.0.2.1", want: []string{"unknown: POSTROUTING 2"}},
	{
		name: "two of unknown owners", rules: "-A POSTROUTING -p tcp -j MASQUERADE\n-A POSTROUTING -p udp -j MASQUERADE",
		want: []string{"unknown: POSTROUTING 1", "unknown: POSTROUTING 2"},
	},
	{name: "behind everything", rules: "-A POSTROUTING -j ACCEPT\n-A POSTROUTING -j MASQUERADE"},
	{name: "docker", rules: "-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE"},
	{
		name: "docker with our pods in its network", rules: "-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
		change: func(q *Query) { q.Sources = addrs("172.17.0.2") }, want: []string{"Docker: POSTROUTING 1"},
	},
	{name: "all sources but the pods'", rules: "-A POSTROUTING ! -s 10.244.0.0/16 -j MASQUERADE"},
	{name: "all sources but one pod's", rules: "-A POSTROUTING ! -s 10.244.0.5/32 -j MASQUERADE", want: []string{"unknown: POSTROUTING 1"}},
	{
		name: "no pods yet", rules: "-A POSTROUTING -s 10.244.0.0/16 -j MASQUERADE\n-A POSTROUTING -j MASQUERADE",
		change: func(q *Query) { q.Sources = nil }, want: []string{"unknown: POSTROUTING 2"},
	},
	{name: "to what is masqueraded anyway", rules: "-A POSTROUTING -d 198.51.100.0/24 -j MASQUERADE"},
	{
		name: "to an exception", rules: "-A POSTROUTING -d 10.1.2.0/24 -j MASQUERADE",
		change: func(q *Query) { q.Policy.Masquerade = prefixes("10.1.0.0/16") },
	},
	{
		name: "to more than an exception", rules: "-A POSTROUTING -d 10.1.0.0/15 -j MASQUERADE",
		change: func(q *Query) { q.Policy.Masquerade = prefixes("10.1.0.0/16") }, want: []string{"unknown: POSTROUTING 1"},
	},
	{name: "to part of what is kept", rules: "-A POSTROUTING -d 10.1.2.3/32 -j MASQUERADE", want: []string{"unknown: POSTROUTING 1"}},
	{name: "not to one of what is kept", rules: "-A POSTROUTING ! -d 10.0.0.0/8 -j MASQUERADE", want: []string{"unknown: POSTROUTING 1"}},
	{
		name: "not to all of what is kept", rules: "-A POSTROUTING ! -d 10.0.0.0/8 -j MASQUERADE",
		change: func(q *Query) {
			q.Policy.NonMasquerade, q.Policy.MasqLinkLocal = prefixes("10.0.0.0/8"), true
		},
	},
	{
		name: "nothing is kept", rules: "-A POSTROUTING -j MASQUERADE",
		change: func(q *Query) { q.Policy.NonMasquerade, q.Policy.MasqLinkLocal = nil, true },
	},
	{name: "to the node's own address", rules: "-A POSTROUTING -d 10.0.1.5/32 -j MASQUERADE"},
	{name: "multicast", rules: "-A POSTROUTING -d 224.0.0.0/4 -j MASQUERADE"},
	{name: "local destinations", rules: "-A POSTROUTING -m addrtype --dst-type LOCAL -j MASQUERADE"},
	{name: "local sources", rules: "-A POSTROUTING -o tunl0 -m addrtype ! --src-type LOCAL --limit-iface-out -m addrtype --src-type LOCAL -j MASQUERADE"},
	{name: "loopback", rules: "-A POSTROUTING -o lo -j MASQUERADE"},
	{name: "not loopback", rules: "-A POSTROUTING ! -o lo -j MASQUERADE", want: []string{"unknown: POSTROUTING 1"}},
	{name: "a mark", rules: "-A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE"},
	{name: "no mark", rules: "-A POSTROUTING -m mark ! --mark 0x4000/0x4000 -j MASQUERADE", want: []string{"unknown: POSTROUTING 1"}},
	{name: "mark zero", rules: "-A POSTROUTING -m mark --mark 0x0/0x4000 -j MASQUERADE", want: []string{"unknown: POSTROUTING 1"}},
	{name: "let out before", rules: `-A POSTROUTING -d 10.0.0.0/8 -j RETURN
-A POSTROUTING -d 172.16.0.0/12 -j ACCEPT
-A POSTROUTING -d 192.168.0.0/16 -j RETURN
-A POSTROUTING -d 169.254.0.0/16 -j RETURN
-A POSTROUTING -j MASQUERADE`},
	{name: "only what is not kept is left", rules: "-A POSTROUTING ! -d 198.51.100.0/24 -j RETURN\n-A POSTROUTING -j MASQUERADE"},
	{name: "some let out before", rules: "-A POSTROUTING -d 10.0.0.0/8 -j RETURN\n-A POSTROUTING -j MASQUERADE", want: []string{"unknown: POSTROUTING 2"}},
	{name: "one pod let out before", rules: "-A POSTROUTING -s 10.244.0.5/32 -j RETURN\n-A POSTROUTING -j MASQUERADE", want: []string{"unknown: POSTROUTING 2"}},
	{name: "both pods let out before", rules: "-A POSTROUTING -s 10.244.0.0/24 -j RETURN\n-A POSTROUTING -j MASQUERADE"},
	{name: "let out under a condition", rules: "-A POSTROUTING -m policy --dir out --pol ipsec -j ACCEPT\n-A POSTROUTING -j MASQUERADE", want: []string{"unknown: POSTROUTING 2"}},

	{name: "ACCEPT ahead", rules: "-A POSTROUTING -j ACCEPT\n" + root, want: []string{"unknown: POSTROUTING 1"}},
	{name: "RETURN ahead", rules: "-A POSTROUTING -s 10.244.0.0/16 -j RETURN\n" + root, want: []string{"unknown: POSTROUTING 1"}},
	{name: "ACCEPT behind", rules: root + "\n-A POSTROUTING -j ACCEPT"},
	{name: "ACCEPT without ours", rules: "-A POSTROUTING -j ACCEPT"},
	{name: "ACCEPT ahead of what is kept", rules: "-A POSTROUTING -d 10.1.0.0/16 -j ACCEPT\n" + root},
	{
		name: "ACCEPT ahead of an exception", rules: "-A POSTROUTING -d 10.1.0.0/16 -j ACCEPT\n" + root,
		change: func(q *Query) { q.Policy.Masquerade = prefixes("10.1.5.0/24") }, want: []string{"unknown: POSTROUTING 1"},
	},
	{name: "ACCEPT of multicast ahead", rules: "-A POSTROUTING -d 224.0.0.0/4 -j ACCEPT\n" + root},
	{name: "ACCEPT of IPsec ahead", rules: "-A POSTROUTING -m policy --dir out --pol ipsec -j ACCEPT\n" + root},
	{name: "ACCEPT in a chain ahead", rules: "-A POSTROUTING -j X\n" + root + "\n-A X -d 198.51.100.0/24 -j ACCEPT", want: []string{"unknown: X 1"}},
	{name: "RETURN in a chain ahead", rules: "-A POSTROUTING -j X\n" + root + "\n-A X -j RETURN"},

	{name: "another address for an egress group, ahead", rules: "-A POSTROUTING -d 198.51.100.0/24 -j MASQUERADE\n" + root, change: withEgress, want: []string{"unknown: POSTROUTING 1"}},
	{name: "another address for an egress group, behind", rules: root + "\n-A POSTROUTING -d 198.51.100.0/24 -j MASQUERADE", change: withEgress},
	{name: "another address for an egress group, where ours are elsewhere", rules: "-A POSTROUTING -d 198.51.100.0/24 -j MASQUERADE", change: withEgress},
	{name: "a queue ahead of an egress group", rules: "-A POSTROUTING -d 198.51.100.0/24 -j NFQUEUE --queue-num 7\n" + root, change: withEgress},
	{name: "ACCEPT ahead of an egress group", rules: "-A POSTROUTING -d 198.51.100.0/24 -j ACCEPT\n" + root, change: withEgress, want: []string{"unknown: POSTROUTING 1"}},
	{name: "an egress group inside of what is kept", rules: "-A POSTROUTING -d 10.7.0.0/16 -j MASQUERADE", change: withEgress},
	{
		name: "by an interface that is left out", rules: "-A POSTROUTING -o cni0 -j ACCEPT\n-A POSTROUTING ! -d 10.0.0.0/8 -o cni0 -j MASQUERADE\n" + root,
		change: func(q *Query) {
			q.Policy.NonMasquerade, q.Policy.OutputInterfaces = prefixes("172.16.0.0/12", "192.168.0.0/16"), policy.Interfaces{"!cni*"}
		},
	},
	{
		name: "by an interface that is not", rules: "-A POSTROUTING -o cni0 -j ACCEPT\n" + root,
		change: func(q *Query) {
			q.Policy.NonMasquerade, q.Policy.OutputInterfaces = prefixes("172.16.0.0/12", "192.168.0.0/16"), policy.Interfaces{"cni*", "eth1"}
		},
		want: []string{"unknown: POSTROUTING 1"},
	},
	{
		name: "of what is kept, by an interface that is left out", rules: "-A POSTROUTING -o eth0 -d 192.168.0.0/16 -j MASQUERADE",
		change: func(q *Query) { q.Policy.OutputInterfaces = policy.Interfaces{"eth1"} }, want: []string{"unknown: POSTROUTING 1"},
	},

	{name: "IPv6", family: policy.IPv6, rules: "-A POSTROUTING -s fd00:244::/64 -j MASQUERADE", want: []string{"unknown: POSTROUTING 1"}},
	{name: "IPv6 of others", family: policy.IPv6, rules: "-A POSTROUTING -s fd00:245::/64 -j MASQUERADE"},
	{
		name: "IPv6 with nothing kept but what nobody forwards", family: policy.IPv6, rules: "-A POSTROUTING -j MASQUERADE",
		change: func(q *Query) { q.Policy.NonMasquerade = nil },
	},
}
