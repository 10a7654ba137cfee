package ruleset

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

func attached(container string, addresses ...string) attachment.Attachment {
	a := attachment.Attachment{Owner: attachment.Owner{Network: "pods", ContainerID: container, IfName: "eth0"}}
	for _, address := range addresses {
		a.Addresses = append(a.Addresses, netip.MustParseAddr(address))
	}
	return a
}

// transcript is a state in short: one line per family, prefixes in front, addresses with their containers after the bar.
func transcript(s State) string {
	var b strings.Builder
	for _, table := range s.Tables {
		fmt.Fprintf(&b, "%s:", table.Family)
		for _, d := range table.Destinations {
			fmt.Fprintf(&b, " %s", d.Prefix)
		}
		b.WriteString(" |")
		for _, pod := range table.Pods {
			fmt.Fprintf(&b, " %s=%s", pod.Address, pod.Label[strings.LastIndex(pod.Label, " ")+1:])
		}
		b.WriteString("\n")
	}
	return b.String()
}

func settings(ipv6 bool, sources policy.Sources) policy.Policy {
	return policy.Policy{
		Settings:      policy.Settings{Chain: "C", Sources: sources, IPv6: ipv6},
		NonMasquerade: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")},
	}
}

var (
	a = attached("a", "10.244.0.10", "fd00:244::a")
	b = attached("b", "10.244.0.9")
	c = attached("c", "10.244.0.9") // was given b's address before b's DEL
)

func TestBuild(t *testing.T) {
	stray := Pods(attached("stray", "10.244.0.11"))
	for _, test := range []struct {
		name        string
		policy      policy.Policy
		attachments []attachment.Attachment
		stray       []Pod
		want        string
	}{
		{"nobody", settings(false, policy.SourcesPods), nil, nil, "IPv4: 169.254.0.0/16 10.0.0.0/8 |\n"},
		{
			"sorted by address", settings(true, policy.SourcesPods),
			[]attachment.Attachment{a, b},
			nil,
			"IPv4: 169.254.0.0/16 10.0.0.0/8 | 10.244.0.9=b 10.244.0.10=a\nIPv6: fe80::/10 fd00::/8 | fd00:244::a=a\n",
		},
		{
			"IPv6 is off", settings(false, policy.SourcesPods),
			[]attachment.Attachment{a},
			nil,
			"IPv4: 169.254.0.0/16 10.0.0.0/8 | 10.244.0.10=a\n",
		},
		{
			"each once", settings(false, policy.SourcesPods),
			[]attachment.Attachment{b, b},
			Pods(b),
			"IPv4: 169.254.0.0/16 10.0.0.0/8 | 10.244.0.9=b\n",
		},
		{
			"a rule without a record", settings(false, policy.SourcesPods),
			[]attachment.Attachment{b},
			stray,
			"IPv4: 169.254.0.0/16 10.0.0.0/8 | 10.244.0.9=b 10.244.0.11=stray\n",
		},
		{
			"all sources", settings(true, policy.SourcesAll),
			[]attachment.Attachment{a, b},
			stray,
			"IPv4: 169.254.0.0/16 10.0.0.0/8 |\nIPv6: fe80::/10 fd00::/8 |\n",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, transcript(Build(test.policy, test.attachments, Node{Unrecorded: test.stray}))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestOneAddressOfTwoOwners: both have it until the former owner's DEL, which takes only its own.
func TestOneAddressOfTwoOwners(t *testing.T) {
	got := Build(settings(false, policy.SourcesPods), []attachment.Attachment{b, c}, Node{})
	if got.Count() != 2 {
		t.Errorf("%d pods, want both:\n%s", got.Count(), transcript(got))
	}
}

// TestBuildIgnoresOrder: the state is a value, whatever order the records come in.
func TestBuildIgnoresOrder(t *testing.T) {
	all := []attachment.Attachment{a, b, c, attached("d", "10.244.0.200", "10.244.0.3"), attached("e")}
	want := Build(settings(true, policy.SourcesPods), all, Node{})
	for range 50 {
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		if diff := cmp.Diff(want, Build(settings(true, policy.SourcesPods), all, Node{}), cmp.Comparer(same[netip.Addr]), cmp.Comparer(same[netip.Prefix])); diff != "" {
			t.Fatal(diff)
		}
	}
}

func same[T comparable](x, y T) bool { return x == y }

func TestUnrecorded(t *testing.T) {
	got := Unrecorded(Pods(a, b), []attachment.Attachment{b})
	if len(got) != 2 || got[0].Owner != a.ID() || got[1].Owner != a.ID() {
		t.Errorf("got %v, want both addresses of a", got)
	}
}

// TestOnlyAndOf narrow a state to what one attachment needs, and leave the whole one as it is.
func TestOnlyAndOf(t *testing.T) {
	whole := Build(settings(true, policy.SourcesPods), []attachment.Attachment{a, b}, Node{})
	before := transcript(whole)
	for _, test := range []struct {
		name string
		got  State
		want string
	}{
		{"only b", whole.Only(Pods(b)), "IPv4: 169.254.0.0/16 10.0.0.0/8 | 10.244.0.9=b\n"},
		{"only a", whole.Only(Pods(a)), "IPv4: 169.254.0.0/16 10.0.0.0/8 | 10.244.0.10=a\nIPv6: fe80::/10 fd00::/8 | fd00:244::a=a\n"},
		{"nobody", whole.Only(nil), ""},
		{"of IPv6", whole.Of(policy.IPv6), "IPv6: fe80::/10 fd00::/8 | fd00:244::a=a\n"},
		{"of none", whole.Of(), ""},
		{"only a, all sources", Build(settings(true, policy.SourcesAll), nil, Node{}).Only(Pods(b)), "IPv4: 169.254.0.0/16 10.0.0.0/8 |\n"},
	} {
		if diff := cmp.Diff(test.want, transcript(test.got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
	if diff := cmp.Diff(before, transcript(whole)); diff != "" {
		t.Errorf("the whole state changed:\n%s", diff)
	}
}
