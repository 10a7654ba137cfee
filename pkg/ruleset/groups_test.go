package ruleset

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// TestGroups: a cluster-wide policy becomes the groups of one node and one family, under the numbers of the policy.
func TestGroups(t *testing.T) {
	prefixes := func(texts ...string) (all []netip.Prefix) {
		for _, text := range texts {
			all = append(all, netip.MustParsePrefix(text))
		}
		return all
	}
	p := settings(true, policy.SourcesPods)
	p.Egress = []policy.Egress{
		{Destinations: prefixes("203.0.113.0/24", "2001:db8::/32"), SourceAddresses: prefixes("192.0.2.0/24")},
		{Destinations: prefixes("2001:db8:1::/48"), SourceAddresses: prefixes("fd00::/8"), WhenMissing: policy.MissingDrop},
		{Destinations: prefixes("198.51.100.0/24"), SourceAddresses: prefixes("100.64.0.0/10")},
	}
	node := Node{Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("10.1.1.1")}}
	const want = "IPv4 [{1 [192.0.2.7] } {3 [] masquerade}] IPv6 [{1 [] masquerade} {2 [] drop}] "
	got := ""
	for _, table := range Build(p, nil, node).Tables {
		got += fmt.Sprint(table.Family, " ", table.Groups, " ")
	}
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestOptedOut: who opted out is named where the policy governs what is no pod's, and only there.
func TestOptedOut(t *testing.T) {
	p := settings(true, policy.SourcesPods)
	node := Node{OptedOut: []attachment.Attachment{attached("z", "10.244.0.9", "fd00::9"), attached("y", "10.244.0.8")}}
	for _, c := range []struct {
		nodeTraffic bool
		sources     policy.Sources
		want        string
	}{
		{false, policy.SourcesPods, "[] [] "},
		{true, policy.SourcesPods, "[10.244.0.8 10.244.0.9] [fd00::9] "},
		{true, policy.SourcesAll, "[] [] "},
	} {
		p.Settings.NodeTraffic, p.Settings.Sources = c.nodeTraffic, c.sources
		got := ""
		for _, table := range Build(p, nil, node).Tables {
			got += fmt.Sprint(table.OptedOut, " ")
		}
		if got != c.want {
			t.Errorf("nodeTraffic %t, sources %s: %s, want %s", c.nodeTraffic, c.sources, got, c.want)
		}
	}
}
