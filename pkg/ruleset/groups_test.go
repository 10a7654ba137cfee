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
	const want = "IPv4 [{1 [192.0.2.0/24] [192.0.2.7] masquerade} {3 [100.64.0.0/10] [] masquerade}] " +
		"IPv6 [{1 [] [] masquerade} {2 [fd00::/8] [] drop}] "
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

// TestTranslated: a pod's annotation chooses of the node's addresses, family by family, as long as the settings name it.
func TestTranslated(t *testing.T) {
	chosen := attached("z", "10.244.0.9", "fd00:244::8")
	chosen.SourceAddresses = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}
	usual := attached("y", "10.244.0.8")
	node := []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("192.0.2.8"), netip.MustParseAddr("10.1.1.1")}
	for _, c := range []struct {
		name        string
		annotations policy.PodAnnotations
		sources     policy.Sources
		node        []netip.Addr
		want        string
		needs       bool
	}{
		{"by its name", policy.SourceAddressesAnnotation, policy.SourcesPods, node, "10.244.0.8- 10.244.0.9-192.0.2.8 fd00:244::8- ", true},
		{"both families", policy.SourceAddressesAnnotation, policy.SourcesPods, append(node, netip.MustParseAddr("2001:db8::7")), "10.244.0.8- 10.244.0.9-192.0.2.8 fd00:244::8-2001:db8::7 ", true},
		{"not any more", policy.AllowAnnotations, policy.SourcesPods, node, "10.244.0.8- 10.244.0.9- fd00:244::8- ", false},
		{"the node has none", policy.SourceAddressesAnnotation, policy.SourcesPods, node[2:], "10.244.0.8- 10.244.0.9- fd00:244::8- ", true},
		{"all sources", policy.SourceAddressesAnnotation, policy.SourcesAll, node, "10.244.0.9-192.0.2.8 ", true},
	} {
		p := settings(true, c.sources)
		p.Settings.PodAnnotations = c.annotations
		got := ""
		for _, table := range Build(p, []attachment.Attachment{usual, chosen}, Node{Addresses: c.node}).Tables {
			for _, pod := range table.Pods {
				got += pod.Address.String() + "-"
				if pod.Translated.IsValid() {
					got += pod.Translated.String()
				}
				got += " "
			}
		}
		if asked := SourceAddresses(p, []attachment.Attachment{usual, chosen}); got != c.want || len(asked) > 0 != c.needs {
			t.Errorf("%s: %q with %v, want %q", c.name, got, asked, c.want)
		}
		if asked := SourceAddresses(p, []attachment.Attachment{usual}); len(asked) > 0 {
			t.Errorf("%s: asks for the node's addresses in %v without a pod that chose", c.name, asked)
		}
	}
}
