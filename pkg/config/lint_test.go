package config

import (
	"net/netip"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

var pods = []Range{{netip.MustParsePrefix("10.244.0.0/16"), "pod range of 10-bridge.conflist"}}

var lintCases = []struct {
	name   string
	text   string
	opts   Options
	ranges []Range
	says   []string // the warnings
}{
	{name: "nothing to say", text: "nonMasqueradeCIDRs: [10.0.0.0/8, 192.168.0.0/16]\nmasqueradeCIDRs: [10.66.0.0/16]", ranges: pods},
	{name: "defaults", text: "", ranges: pods},
	{name: "an exception around an exception's opposite", text: "nonMasqueradeCIDRs: [10.0.0.0/8, 10.66.1.0/24]\nmasqueradeCIDRs: [10.66.0.0/16]"},

	{
		name: "twice", text: "nonMasqueradeCIDRs:\n- 10.0.0.0/8\n- 10.0.0.0/8\nmasqueradeCIDRs:\n- 10.1.0.0/16\n- 10.1.0.0/16\n",
		says: []string{
			"f:3:3: warning: 10.0.0.0/8 is listed twice, first in line 2: remove one of them\n",
			"f:6:3: warning: 10.1.0.0/16 is listed twice, first in line 5: remove one of them\n",
		},
	},
	{
		name: "covered", text: "nonMasqueradeCIDRs: [10.0.0.0/8, 10.1.0.0/16, 169.254.1.0/24]",
		says: []string{
			"f:1:34: warning: 10.1.0.0/16 changes nothing: 10.0.0.0/8 (line 1) covers it; remove one of the two\n",
			"f:1:47: warning: 169.254.1.0/24 changes nothing: 169.254.0.0/16 (a default) covers it; remove one of the two\n",
		},
	},
	{name: "link-local is not covered where it is masqueraded", text: "nonMasqueradeCIDRs: [10.0.0.0/8, 169.254.1.0/24]\nmasqLinkLocal: true"},
	{
		name: "exceptions without effect", text: "masqueradeCIDRs:\n- 8.8.8.0/24\n- 10.1.0.0/16\n- 10.1.2.0/24\n- 0.0.0.0/0\n",
		says: []string{
			"f:2:3: warning: 8.8.8.0/24 changes nothing: the exception 0.0.0.0/0 (line 5) covers it; remove one of the two\n",
			"f:4:3: warning: 10.1.2.0/24 changes nothing: the exception 10.1.0.0/16 (line 3) covers it; remove one of the two\n",
			"f:5:3: warning: 0.0.0.0/0 has no effect: no prefix around it keeps the pod's address, so it is masqueraded anyway; remove it\n",
		},
	},
	{
		name: "everything is kept", text: "nonMasqueradeCIDRs: [0.0.0.0/0]", ranges: pods,
		says: []string{"f:1:22: warning: 0.0.0.0/0 keeps the pod's address everywhere: no IPv4 destination is masqueraded but those in masqueradeCIDRs\n"},
	},
	{
		name: "IPv6 on without IPv6 prefixes", text: "nonMasqueradeCIDRs: [10.0.0.0/8]", opts: ipv6,
		says: []string{"f:1:22: warning: IPv6 is on and nonMasqueradeCIDRs lists no IPv6 prefix, so only the default fc00::/7 keeps the pod's address: list the cluster's IPv6 ranges, or fc00::/7 to say that these are all\n"},
	},
	{name: "IPv6 on with the default written down", text: "nonMasqueradeCIDRs: [10.0.0.0/8, 'fc00::/7']", opts: ipv6},
	{name: "IPv6 on with nothing kept", text: "nonMasqueradeCIDRs: []", opts: ipv6},

	{
		name: "pod range masqueraded", text: "nonMasqueradeCIDRs: [192.168.0.0/16]", ranges: pods,
		says: []string{"f:1:22: warning: 10.244.0.0/16, the pod range of 10-bridge.conflist, would be masqueraded: add it to nonMasqueradeCIDRs\n"},
	},
	{
		name: "pod range masqueraded in part", text: "nonMasqueradeCIDRs: [10.244.0.0/17, 10.244.128.0/18]", ranges: pods,
		says: []string{"f:1:22: warning: 10.244.0.0/16, the pod range of 10-bridge.conflist, would be masqueraded in part (10.244.192.0/18): add it"},
	},
	{name: "pod range kept in two halves", text: "nonMasqueradeCIDRs: [10.244.0.0/17, 10.244.128.0/17]", ranges: pods},
	{
		name: "an exception inside the pod range", text: "masqueradeCIDRs: [10.244.3.0/24]", ranges: pods,
		says: []string{"f: warning: 10.244.0.0/16, the pod range of 10-bridge.conflist, would be masqueraded in part (10.244.3.0/24): add it"},
	},

	// Egress.
	{
		name: "a masqueraded island in an egress group, and a kept one",
		text: "nonMasqueradeCIDRs: [10.0.0.0/8, 203.0.113.128/25]\nmasqueradeCIDRs: [203.0.113.0/25]\negress: [{destinations: [203.0.113.0/24], sourceAddresses: [192.0.2.0/28]}]",
	},
	{
		name: "destinations without effect",
		text: "egress:\n- destinations: [203.0.113.0/24, 203.0.113.7/32, 203.0.113.0/24, 239.0.0.0/8]\n  sourceAddresses: [192.0.2.0/28]\n- destinations: [203.0.113.8/32]\n  sourceAddresses: [192.0.2.16/28]\n",
		says: []string{
			"f:2:34: warning: 203.0.113.7/32 changes nothing: 203.0.113.0/24 (line 2) covers it; remove one of the two\n",
			"f:2:50: warning: 203.0.113.0/24 is listed twice, first in line 2: remove one of them\n",
			"f:2:66: warning: 239.0.0.0/8 has no effect: what goes to multicast addresses keeps its source; remove it\n",
		},
	},
	{
		name: "source addresses without effect", opts: ipv6,
		text: "nonMasqueradeCIDRs: [10.0.0.0/8, 'fc00::/7']\negress:\n- destinations: [203.0.113.0/24]\n  sourceAddresses: [192.0.2.0/24, 192.0.2.7/32, '2001:db8::/32', 192.0.2.0/24]\n",
		says: []string{
			"f:4:35: warning: 192.0.2.7/32 changes nothing: 192.0.2.0/24 (line 4) covers it; remove one of the two\n",
			"f:4:49: warning: 2001:db8::/32 has no effect: the item of egress has no IPv6 destination; add one, or remove it\n",
			"f:4:66: warning: 192.0.2.0/24 is listed twice, first in line 4: remove one of them\n",
		},
	},
	{
		name: "an exception around egress", text: "masqueradeCIDRs: [203.0.113.0/24]\negress: [{destinations: [203.0.113.7/32], sourceAddresses: [192.0.2.0/28]}]",
		says: []string{"f:1:19: warning: 203.0.113.0/24 has no effect: no prefix around it"},
	},
	{
		name: "pod range translated", ranges: pods, text: "egress: [{destinations: [10.244.0.0/16], sourceAddresses: [192.0.2.0/28]}]",
		says: []string{"f: warning: 10.244.0.0/16, the pod range of 10-bridge.conflist, would be masqueraded: add it"},
	},
	{
		name: "egress in a ConfigMap",
		text: "kind: ConfigMap\napiVersion: v1\ndata:\n  config: |\n    outputInterfaces: [eth0, eth0]\n    egress:\n    - destinations:\n      - 203.0.113.0/24\n      - 203.0.113.9/32\n      sourceAddresses: [192.0.2.0/28]\n",
		says: []string{
			`f:5:30: warning: "eth0" is listed twice, first in line 5: remove one of them` + "\n",
			"f:9:9: warning: 203.0.113.9/32 changes nothing: 203.0.113.0/24 (line 8) covers it",
		},
	},

	// Interfaces.
	{name: "interfaces", text: "outputInterfaces: [eth0, bond*, '!bond9']"},
	{name: "exclusions alone", text: "outputInterfaces: ['!wg0', '!tun*']"},
	{
		name: "no interfaces", text: "outputInterfaces: []",
		says: []string{"f:1:1: warning: outputInterfaces is empty, which means every interface: list some, or remove the line\n"},
	},
	{
		name: "interfaces without effect", text: "outputInterfaces: [eth0, '!eth0', bond1, bond*, '!wg0', '!bond7', eth*, '!eth1*', '!eth10']",
		says: []string{
			`f:1:20: warning: "eth0" has no effect: "!eth0" (line 1) leaves out every interface that it names; remove one of the two`,
			`f:1:35: warning: "bond1" changes nothing: "bond*" (line 1) covers it; remove one of the two`,
			`f:1:49: warning: "!wg0" changes nothing: no pattern of the list names an interface that it leaves out; remove it`,
			`f:1:83: warning: "!eth10" changes nothing: "!eth1*" (line 1) covers it; remove one of the two`,
		},
	},

	// Settings.
	{name: "settings", text: "sources: pods\nrandomFully: false\ntoPorts: 1024-29999,61000-65535"},
	{
		name: "port ranges", text: "toPorts: 1024-31000,2000-2009", opts: Options{NodePorts: policy.PortRange{First: 30000, Last: 32767}},
		says: []string{
			"f:1:1: warning: port range 1024-31000 holds ports of Services (30000-32767), whose connections collide with masqueraded ones: leave them out, or write auto\n",
			"f:1:1: warning: port ranges 1024-31000 and 2000-2009 overlap: ports in both are chosen twice as often; write them as one\n",
		},
	},
	{
		name: "keys that flags win over", text: "toPorts: 1-2\nsources: all", opts: Options{Given: []string{"sources", "to-ports"}},
		says: []string{
			"f:1:1: warning: toPorts has no effect: the flag --to-ports is given, and wins\n",
			"f:2:1: warning: sources has no effect: the flag --sources is given, and wins\n",
		},
	},
	{
		name: "annotations without pods", text: "podAnnotations: deny\nsources: all",
		says: []string{"f:1:1: warning: podAnnotations has no effect: with sources: all the policy does not know pods\n"},
	},

	// Manifests.
	{
		name: "ConfigMap", ranges: pods,
		text: "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ip-masq-agent\ndata:\n  config: |\n    nonMasqueradeCIDRs:\n      - 192.168.0.0/16\n      - 192.168.0.0/16\n",
		says: []string{
			"f:8:9: warning: 10.244.0.0/16, the pod range of 10-bridge.conflist, would be masqueraded",
			"f:9:9: warning: 192.168.0.0/16 is listed twice, first in line 8",
		},
	},
	{
		name: "ConfigMap as JSON", text: `{"apiVersion":"v1","kind":"ConfigMap","data":{"config":"nonMasqueradeCIDRs: [10.0.0.0/8, 10.0.0.0/8]"}}`,
		says: []string{"warning: 10.0.0.0/8 is listed twice"},
	},
	{
		name: "ConfigMap behind another object", text: "apiVersion: v1\nkind: Namespace\n---\napiVersion: v1\nkind: ConfigMap\ndata:\n  config: |\n    masqueradeCIDRs:\n    - 8.8.8.0/24\n",
		says: []string{"f:9:7: warning: 8.8.8.0/24 has no effect"},
	},
}

func TestLint(t *testing.T) {
	for _, c := range lintCases {
		t.Run(c.name, func(t *testing.T) {
			_, findings, err := LintText("f", []byte(c.text), c.opts, c.ranges)
			if err != nil {
				t.Fatal(err)
			}
			checkSays(t, findings, c.says)
			for _, finding := range findings {
				if finding.Key == "" {
					t.Errorf("names no key: %s", finding)
				}
			}
		})
	}
}

// A manifest that the agent would not see as meant is refused, with the lines of the manifest.
func TestLintRefusesManifests(t *testing.T) {
	for _, c := range []struct{ name, text, says string }{
		{
			"another key", "apiVersion: v1\nkind: ConfigMap\ndata:\n  ip-masq-agent: |\n    masqLinkLocal: true\n",
			`f:1:1: error: the ConfigMap has no key "config" but "ip-masq-agent", so the agent would find no file and use the defaults: rename the key to "config"`,
		},
		{"no data", "apiVersion: v1\nkind: ConfigMap\n", `f:1:1: error: the ConfigMap has no key "config" but no data at all`},
		{
			"bad item in a block", "apiVersion: v1\nkind: ConfigMap\ndata:\n  config: |\n    nonMasqueradeCIDRs:\n    - 10.0.0.1/8\n",
			`f:6:7: error: nonMasqueradeCIDRs[0]: CIDR "10.0.0.1/8" is not aligned`,
		},
		{
			"unknown key in a string", "apiVersion: v1\nkind: ConfigMap\ndata:\n  config: 'nonMasqueradeCIDR: []'\n",
			`f:4: error: unknown key "nonMasqueradeCIDR"`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, findings, err := LintText("f", []byte(c.text), Options{}, nil)
			checkRefused(t, got, err)
			checkSays(t, findings, []string{c.says})
		})
	}
}

// What is accepted is accepted with the same lists, and what is refused is refused with the same words.
func TestLintAgreesWithParse(t *testing.T) {
	for _, c := range slices.Concat(acceptedCases, refusedCases) {
		t.Run(c.name, func(t *testing.T) {
			want, wantFindings, wantErr := Parse("f", []byte(c.text), c.opts)
			got, findings, err := LintText("f", []byte(c.text), c.opts, nil)
			if (err == nil) != (wantErr == nil) {
				t.Fatalf("lint: %v, parse: %v", err, wantErr)
			}
			if diff := cmp.Diff(want, got, sameConfig); diff != "" {
				t.Errorf("-parse +lint:\n%s", diff)
			}
			if len(findings) < len(wantFindings) || !slices.Equal(findings[:len(wantFindings)], wantFindings) {
				t.Errorf("parse says %v, lint %v", wantFindings, findings)
			}
		})
	}
}

func TestLintOfDirectory(t *testing.T) {
	dir := fileTree{"ip-masq-a": "nonMasqueradeCIDRs:\n- 10.0.0.0/8\n", "ip-masq-b": "nonMasqueradeCIDRs:\n- 10.1.0.0/16\n"}.make(t)
	_, findings, err := Lint(Options{Path: dir, AllowDir: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	checkSays(t, findings, []string{filepath.Join(dir, "ip-masq-b") + ":2:3: warning: 10.1.0.0/16 changes nothing: 10.0.0.0/8 (" + filepath.Join(dir, "ip-masq-a") + ":2) covers it"})
}
