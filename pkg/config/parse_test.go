package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

const (
	rfc1918  = "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16"
	reserved = " 100.64.0.0/10 192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 240.0.0.0/4"
)

// prefixList reads prefixes separated by spaces.
func prefixList(text string) []netip.Prefix {
	var list []netip.Prefix
	for _, field := range strings.Fields(text) {
		list = append(list, netip.MustParsePrefix(field))
	}
	return list
}

// with returns the configuration of a file that gives the one list, with the changes.
func with(nonMasquerade string, changes ...func(*Config)) *Config {
	c := &Config{NonMasquerade: prefixList(nonMasquerade), ResyncInterval: time.Minute}
	for _, change := range changes {
		change(c)
	}
	return c
}

func linkLocal(c *Config)     { c.MasqLinkLocal = true }
func linkLocalIPv6(c *Config) { c.MasqLinkLocalIPv6 = true }

func every(d time.Duration) func(*Config) { return func(c *Config) { c.ResyncInterval = d } }

func except(list string) func(*Config) {
	return func(c *Config) { c.Masquerade = prefixList(list) }
}

var sameConfig = cmp.Options{
	cmpopts.EquateEmpty(),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmpopts.IgnoreFields(Config{}, "Files", "Hash", "Flags", "origins"),
}

var (
	ipv6      = Options{EnableIPv6: true}
	lenient   = Options{Lenient: true}
	allRanges = Options{AllReserved: true}
)

// A parseCase is one line of the contract: what the file says, and what is then in force or wrong.
type parseCase struct {
	name string
	text string
	opts Options
	want *Config  // nil: refused
	says []string // each in the text of one finding: the errors, or the warnings of what is accepted
}

func settingsOf(change func(*policy.Settings)) func(*Config) {
	return func(c *Config) { change(&c.Settings) }
}

func interfaces(patterns ...string) func(*Config) {
	return func(c *Config) { c.OutputInterfaces = patterns }
}

// toward is an egress group in three words: destinations, sources, whenMissing.
func toward(destinations, sources string, missing policy.WhenMissing) func(*Config) {
	return func(c *Config) {
		c.Egress = append(c.Egress, policy.Egress{Destinations: prefixList(destinations), SourceAddresses: prefixList(sources), WhenMissing: missing})
	}
}

// acceptedCases and refusedCases are the contract.
var acceptedCases = []parseCase{
	// Egress.
	{
		name: "egress",
		text: "egress:\n- destinations: [203.0.113.0/24, 198.51.100.7/32]\n  sourceAddresses: [192.0.2.0/28]\n- destinations: [0.0.0.0/0]\n  sourceAddresses: [198.51.100.0/24]\n  whenMissing: drop\n",
		want: with(rfc1918, toward("203.0.113.0/24 198.51.100.7/32", "192.0.2.0/28", ""), toward("0.0.0.0/0", "198.51.100.0/24", policy.MissingDrop)),
	},
	{
		name: "egress in JSON, both families", opts: ipv6,
		text: `{"egress": [{"whenMissing": "masquerade", "sourceAddresses": ["192.0.2.1/32", "2001:db8::1/128"], "destinations": ["2001:db8:1::/48", "203.0.113.0/24"]}]}`,
		want: with(rfc1918+" fc00::/7", toward("2001:db8:1::/48 203.0.113.0/24", "192.0.2.1/32 2001:db8::1/128", policy.MissingMasquerade)),
	},
	{
		name: "egress by anchors",
		text: "egress:\n- &a\n  destinations: [203.0.113.0/24]\n  sourceAddresses: &s [192.0.2.0/28]\n- destinations: [198.51.100.0/24]\n  sourceAddresses: *s\n",
		want: with(rfc1918, toward("203.0.113.0/24", "192.0.2.0/28", ""), toward("198.51.100.0/24", "192.0.2.0/28", "")),
	},
	{name: "no egress", text: "egress: []", want: with(rfc1918)},
	{
		name: "egress inside the defaults", text: "egress: [{destinations: [10.9.0.0/16], sourceAddresses: [192.0.2.0/28]}]",
		want: with(rfc1918, toward("10.9.0.0/16", "192.0.2.0/28", "")),
	},
	{
		name: "egress to link-local beside its switch", text: "masqLinkLocal: true\negress: [{destinations: [169.254.0.0/16], sourceAddresses: [192.0.2.0/28]}]",
		want: with(rfc1918, linkLocal, toward("169.254.0.0/16", "192.0.2.0/28", "")),
	},
	{
		name: "lenient: a key of egress", opts: Options{Lenient: true}, text: "egress:\n- destinations: [203.0.113.0/24]\n  sourceAddresses: [192.0.2.0/28]\n  whenmissing: drop\n",
		want: with(rfc1918, toward("203.0.113.0/24", "192.0.2.0/28", "")),
		says: []string{`f:4:3: warning: unknown key "egress[0].whenmissing" is ignored: did you mean whenMissing?`},
	},

	// Interfaces.
	{name: "interfaces", text: "outputInterfaces: [eth0, bond*, '!wg0', \"!tun*\"]", want: with(rfc1918, interfaces("eth0", "bond*", "!wg0", "!tun*"))},
	{name: "no interfaces", text: "outputInterfaces: []", want: with(rfc1918)},

	// Settings.
	{name: "sources", text: "sources: all", want: with(rfc1918, settingsOf(func(s *policy.Settings) { s.Sources = policy.SourcesAll }))},
	{name: "a flag wins over sources", text: "sources: all", opts: Options{Given: []string{"sources"}}, want: with(rfc1918)},
	{name: "randomFully", text: "randomFully: true", want: with(rfc1918, settingsOf(func(s *policy.Settings) { s.RandomFully = true }))},
	{name: "a flag wins over randomFully", text: "randomFully: true", opts: Options{Given: []string{"random-fully"}}, want: with(rfc1918)},
	{
		name: "toPorts", text: "toPorts: 1024-29999,61000-65535",
		want: with(rfc1918, settingsOf(func(s *policy.Settings) {
			s.ToPorts = policy.PortRanges{{First: 1024, Last: 29999}, {First: 61000, Last: 65535}}
		})),
	},
	{name: "one port", text: "toPorts: 2000", want: with(rfc1918, settingsOf(func(s *policy.Settings) { s.ToPorts = policy.PortRanges{{First: 2000, Last: 2000}} }))},
	{name: "toPorts auto", text: "toPorts: auto", want: with(rfc1918, settingsOf(func(s *policy.Settings) { s.AutoPorts = true }))},
	{
		name: "a flag wins over toPorts auto", text: "toPorts: auto",
		opts: Options{Given: []string{"to-ports"}, Settings: policy.Settings{ToPorts: policy.PortRanges{{First: 1, Last: 2}}}},
		want: with(rfc1918, settingsOf(func(s *policy.Settings) { s.ToPorts = policy.PortRanges{{First: 1, Last: 2}} })),
	},
	{
		name: "a key wins over a default", text: "toPorts: 5-6\nsources: pods\nrandomFully: false",
		opts: Options{Settings: policy.Settings{RandomFully: true, AutoPorts: true, Sources: policy.SourcesAll}},
		want: with(rfc1918, settingsOf(func(s *policy.Settings) {
			s.Sources, s.ToPorts = policy.SourcesPods, policy.PortRanges{{First: 5, Last: 6}}
		})),
	},
	{name: "traffic of the node", text: "nodeTraffic: true", want: with(rfc1918, settingsOf(func(s *policy.Settings) { s.NodeTraffic = true }))},
	{name: "no traffic of the node beside all", text: "nodeTraffic: false\nsources: all", want: with(rfc1918, settingsOf(func(s *policy.Settings) { s.Sources = policy.SourcesAll }))},
	{name: "annotations allowed", text: "podAnnotations: allow", want: with(rfc1918)},
	{name: "annotations denied", text: "podAnnotations: deny", want: with(rfc1918, settingsOf(func(s *policy.Settings) { s.PodAnnotations = policy.DenyAnnotations }))},
	{name: "no annotations", text: "podAnnotations: []", want: with(rfc1918, settingsOf(func(s *policy.Settings) { s.PodAnnotations = policy.DenyAnnotations }))},
	{
		name: "a list of annotations", text: "podAnnotations: [ip-masq-agent/source-addresses, ip-masq-agent/masquerade]",
		want: with(rfc1918, settingsOf(func(s *policy.Settings) {
			s.PodAnnotations = "ip-masq-agent/masquerade,ip-masq-agent/source-addresses"
		})),
	},

	// Nothing said: the defaults.
	{name: "zero bytes", text: "", want: with(rfc1918)},
	{name: "blank", text: " \n\n", want: with(rfc1918)},
	{name: "comment only", text: "# nothing\n", want: with(rfc1918)},
	{name: "null", text: "null\n", want: with(rfc1918)},
	{name: "tilde", text: "~", want: with(rfc1918)},
	{name: "braces", text: "{}", want: with(rfc1918)},
	{name: "document start only", text: "---\n", want: with(rfc1918)},
	{name: "byte order mark only", text: "\ufeff", want: with(rfc1918)},
	{name: "defaults with IPv6", text: "{}", opts: ipv6, want: with(rfc1918 + " fc00::/7")},
	{name: "defaults with all reserved ranges", text: "", opts: allRanges, want: with(rfc1918 + reserved)},
	{
		name: "defaults with all reserved ranges and IPv6", text: "",
		opts: Options{AllReserved: true, EnableIPv6: true}, want: with(rfc1918 + reserved + " fc00::/7"),
	},

	// The keys of the Kubernetes agent.
	{
		name: "all upstream keys",
		text: "nonMasqueradeCIDRs:\n  - 172.16.0.0/12\n  - 10.0.0.0/8\ncidrLimit: 64\nmasqLinkLocal: true\nresyncInterval: 5s\n",
		want: with("172.16.0.0/12 10.0.0.0/8", linkLocal, every(5*time.Second)),
	},
	{name: "only CIDRs", text: "nonMasqueradeCIDRs:\n  - 192.168.0.0/16\n", want: with("192.168.0.0/16")},
	{name: "only masqLinkLocal", text: "masqLinkLocal: true\n", want: with(rfc1918, linkLocal)},
	{name: "only masqLinkLocalIPv6", text: "masqLinkLocalIPv6: true\n", want: with(rfc1918, linkLocalIPv6)},
	{name: "only resyncInterval", text: "resyncInterval: 5m\n", want: with(rfc1918, every(5*time.Minute))},
	{name: "shortest resyncInterval", text: "resyncInterval: 100ms\n", want: with(rfc1918, every(100*time.Millisecond))},
	{
		name: "JSON", text: `{"nonMasqueradeCIDRs":["172.16.0.0/12","10.0.0.0/8"],"masqLinkLocal":true,"resyncInterval":"5s"}`,
		want: with("172.16.0.0/12 10.0.0.0/8", linkLocal, every(5*time.Second)),
	},
	{name: "JSON only CIDRs", text: `{"nonMasqueradeCIDRs":["192.168.0.0/16"]}`, want: with("192.168.0.0/16")},
	{name: "JSON only masqLinkLocal", text: `{"masqLinkLocal":true}`, want: with(rfc1918, linkLocal)},
	{name: "JSON escapes", text: `{"resyncInterval":"\u0035\u006d"}`, want: with(rfc1918, every(5*time.Minute))},
	{name: "JSON escaped slash", text: `{"nonMasqueradeCIDRs":["10.0.0.0\/8"]}`, want: with("10.0.0.0/8")},
	{
		name: "JSON after tabs and newline", text: "\t\t\n\t{\n\t\t\"nonMasqueradeCIDRs\": [\"fc00::/7\",\t\"10.0.0.0/8\"]\n\t}\n",
		opts: ipv6, want: with("fc00::/7 10.0.0.0/8"),
	},
	{name: "JSON after a byte order mark", text: "\ufeff{\"masqLinkLocal\":true}", want: with(rfc1918, linkLocal)},

	// YAML as Kubernetes reads it.
	{name: "yes", text: "masqLinkLocal: yes", want: with(rfc1918, linkLocal)},
	{name: "on and off", text: "masqLinkLocal: on\nmasqLinkLocalIPv6: off", want: with(rfc1918, linkLocal)},
	{name: "CRLF", text: "nonMasqueradeCIDRs:\r\n- 10.0.0.0/8\r\nmasqLinkLocal: true\r\n", want: with("10.0.0.0/8", linkLocal)},
	{name: "byte order mark", text: "\ufeffmasqLinkLocal: true", want: with(rfc1918, linkLocal)},
	{name: "anchor", text: "nonMasqueradeCIDRs: [&a 10.0.0.0/8, *a]", want: with("10.0.0.0/8 10.0.0.0/8")},
	{name: "document start and end", text: "---\nmasqLinkLocal: true\n...\n", want: with(rfc1918, linkLocal)},
	{name: "IPv6 without quotes", text: "nonMasqueradeCIDRs:\n- ::/0\n- ::1/128", opts: ipv6, want: with("::/0 ::1/128 " + rfc1918)},

	// The lists.
	{name: "empty list", text: "nonMasqueradeCIDRs: []", want: with("")},
	{name: "empty list empties both families", text: "nonMasqueradeCIDRs: []", opts: ipv6, want: with("")},
	{name: "empty list beats all reserved ranges", text: "nonMasqueradeCIDRs: []", opts: allRanges, want: with("")},
	{name: "IPv4 only leaves the IPv6 default", text: "nonMasqueradeCIDRs: [10.0.0.0/8]", opts: ipv6, want: with("10.0.0.0/8 fc00::/7")},
	{name: "IPv6 only leaves the IPv4 defaults", text: "nonMasqueradeCIDRs: ['fd00::/8']", opts: ipv6, want: with("fd00::/8 " + rfc1918)},
	{
		name: "IPv6 only leaves all reserved ranges", text: "nonMasqueradeCIDRs: ['fd00::/8']",
		opts: Options{AllReserved: true, EnableIPv6: true}, want: with("fd00::/8 " + rfc1918 + reserved),
	},
	{name: "own IPv4 list beats all reserved ranges", text: "nonMasqueradeCIDRs: [10.0.0.0/8]", opts: allRanges, want: with("10.0.0.0/8")},
	{name: "both families", text: "nonMasqueradeCIDRs: ['fd00::/8', 10.0.0.0/8]", opts: ipv6, want: with("fd00::/8 10.0.0.0/8")},
	{
		name: "duplicates and covered prefixes in the user's order", text: "nonMasqueradeCIDRs: [10.1.0.0/16, 10.0.0.0/8, 10.1.0.0/16]",
		want: with("10.1.0.0/16 10.0.0.0/8 10.1.0.0/16"),
	},
	{name: "one address, and everything", text: "nonMasqueradeCIDRs: [10.0.0.1/32, 0.0.0.0/0]", want: with("10.0.0.1/32 0.0.0.0/0")},
	{name: "exceptions inside the defaults", text: "masqueradeCIDRs: [10.1.0.0/16]", want: with(rfc1918, except("10.1.0.0/16"))},
	{name: "no exceptions", text: "masqueradeCIDRs: []", want: with(rfc1918)},
	{
		name: "a default is an exception where the list is empty", text: "nonMasqueradeCIDRs: []\nmasqueradeCIDRs: [10.0.0.0/8]",
		want: with("", except("10.0.0.0/8")),
	},
	{
		name: "link-local exception beside its switch", text: "masqueradeCIDRs: [169.254.0.0/16]\nmasqLinkLocal: true",
		want: with(rfc1918, linkLocal, except("169.254.0.0/16")),
	},
	{
		name: "exception inside link-local", text: "masqueradeCIDRs: [169.254.169.254/32]",
		want: with(rfc1918, except("169.254.169.254/32")),
	},
	{name: "no limit by default", text: "nonMasqueradeCIDRs: [" + manyCIDRs(200) + "]", want: with(strings.ReplaceAll(manyCIDRs(200), ",", " "))},
	{name: "limit reached", text: "nonMasqueradeCIDRs: [10.0.0.0/8, 172.16.0.0/12]\ncidrLimit: 2", want: with("10.0.0.0/8 172.16.0.0/12")},
	{name: "the limit does not count the defaults", text: "cidrLimit: 0", want: with(rfc1918)},

	// --strict-config=false
	{
		name: "lenient: unknown key", text: "nonMasqueradeCIDR: [10.0.0.0/8]", opts: lenient, want: with(rfc1918),
		says: []string{`f:1:1: warning: unknown key "nonMasqueradeCIDR" is ignored: did you mean nonMasqueradeCIDRs?`},
	},
	{
		name: "lenient: other letter case is not half-used", text: "nonmasqueradecidrs: [10.1.0.0/16]\nmasqLinkLocal: true", opts: lenient,
		want: with(rfc1918, linkLocal), says: []string{`f:1:1: warning: unknown key "nonmasqueradecidrs" is ignored`},
	},
	{
		name: "lenient: other letter case in JSON", text: `{"masqLinkLocal":false,"MasqLinkLocal":true}`, opts: lenient,
		want: with(rfc1918), says: []string{`f:1:24: warning: unknown key "MasqLinkLocal" is ignored: did you mean masqLinkLocal?`},
	},
	{
		name: "lenient: the last of two counts", text: "resyncInterval: bad\nresyncInterval: 10s", opts: lenient, want: with(rfc1918, every(10*time.Second)),
		says: []string{`f:2:1: warning: key "resyncInterval" is given twice, first in line 1 and the last one counts`},
	},
	{
		name: "lenient: the last of two counts in JSON", text: `{"resyncInterval":"5s","resyncInterval":"10s"}`, opts: lenient,
		want: with(rfc1918, every(10*time.Second)), says: []string{`f:1:24: warning: key "resyncInterval" is given twice`},
	},
	{
		name: "lenient: merge key", text: "<<: {masqLinkLocal: true}", opts: lenient, want: with(rfc1918),
		says: []string{`warning: unknown key "<<" is ignored`},
	},
}

var refusedCases = []parseCase{
	// Egress.
	{name: "egress as a mapping", text: "egress: {destinations: []}", says: []string{`f:1:9: error: egress is a mapping: write a list of mappings, each with destinations and sourceAddresses`}},
	{name: "egress without a value", text: "egress:", says: []string{`f:1:1: error: egress has no value: write [] for none, or remove the line`}},
	{name: "item is a prefix", text: "egress:\n- 203.0.113.0/24", says: []string{`f:2:3: error: egress[0] is the string "203.0.113.0/24": write a mapping with destinations and sourceAddresses`}},
	{name: "item is empty", text: "egress:\n-\n", says: []string{`f:2:2: error: egress[0] is empty: write a mapping`}},
	{
		name: "item without destinations", text: "egress:\n- sourceAddresses: [192.0.2.0/28]",
		says: []string{`f:2:3: error: egress[0] has no destinations: add the prefixes of the destinations`},
	},
	{
		name: "item without sources", text: "egress:\n- destinations: [203.0.113.0/24]\n  sourceAddresses: []",
		says: []string{`f:3:3: error: egress[0].sourceAddresses is empty: write the prefixes of the node's addresses that they should see, or remove the item of egress`},
	},
	{name: "destinations without a value", text: "egress:\n- destinations:\n  sourceAddresses: [192.0.2.0/28]", says: []string{`f:2:3: error: egress[0].destinations is empty`}},
	{
		name: "misspelt key of an item", text: "egress:\n- destinations: [203.0.113.0/24]\n  sourceAddresses: [192.0.2.0/28]\n  whenMising: drop",
		says: []string{`f:4:3: error: unknown key "egress[0].whenMising": did you mean whenMissing?`},
	},
	{
		name: "key of the file in an item", text: "egress:\n- destinations: [203.0.113.0/24]\n  sourceAddresses: [192.0.2.0/28]\n  toPorts: auto",
		says: []string{`f:4:3: error: unknown key "egress[0].toPorts": the known keys are destinations, sourceAddresses, whenMissing`},
	},
	{name: "whenMissing", text: `{"egress":[{"destinations":["203.0.113.0/24"],"sourceAddresses":["192.0.2.0/28"],"whenMissing":"reject"}]}`, says: []string{`f:1:96: error: egress[0].whenMissing is the string "reject": write masquerade, or drop`}},
	{
		name: "destination without a source", opts: ipv6, text: "egress:\n- destinations: [203.0.113.0/24, '2001:db8::/32']\n  sourceAddresses: [192.0.2.0/28]",
		says: []string{`f:2:34: error: 2001:db8::/32 is IPv6, and egress[0].sourceAddresses has no IPv6 prefix: add one, or remove the destination`},
	},
	{
		name: "source with host bits", text: "egress:\n- destinations: [203.0.113.0/24]\n  sourceAddresses:\n  - 192.0.2.4/28\n",
		says: []string{`f:4:5: error: egress[0].sourceAddresses[0]: CIDR "192.0.2.4/28" is not aligned: use "192.0.2.0/28"`},
	},
	{name: "source without a length", text: "egress:\n- destinations: [203.0.113.0/24]\n  sourceAddresses: [192.0.2.4]", says: []string{`f:3:21: error: egress[0].sourceAddresses[0]: CIDR "192.0.2.4" has no prefix length: use "192.0.2.4/32" for this one address`}},
	{name: "source of another family, which is off", text: "egress:\n- destinations: ['2001:db8::/32']\n  sourceAddresses: ['2001:db8:1::/64']", says: []string{
		`f:2:18: error: egress[0].destinations[0]: CIDR "2001:db8::/32" is IPv6, which is off`, `f:3:21: error: egress[0].sourceAddresses[0]: CIDR "2001:db8:1::/64" is IPv6, which is off`,
	}},
	{name: "sources to nowhere", text: "egress:\n- destinations: [203.0.113.0/24]\n  sourceAddresses: [127.0.0.0/8, 224.0.0.0/4]", says: []string{
		`f:3:21: error: 127.0.0.0/8 is no range of source addresses that other hosts can answer to`, `f:3:34: error: 224.0.0.0/4 is no range`,
	}},
	{
		name: "destination in two groups", text: "egress:\n- destinations: [203.0.113.0/24]\n  sourceAddresses: [192.0.2.0/28]\n- destinations: [198.51.100.0/24, 203.0.113.0/24]\n  sourceAddresses: [192.0.2.0/28]",
		says: []string{`f:4:35: error: CIDR "203.0.113.0/24" is in egress[1].destinations and in egress[0].destinations (line 2): remove one of the two`},
	},
	{
		name: "destination in the other list", text: "masqueradeCIDRs: [10.1.0.0/16]\negress:\n- destinations: [10.1.0.0/16]\n  sourceAddresses: [192.0.2.0/28]",
		says: []string{`f:3:18: error: CIDR "10.1.0.0/16" is in egress[0].destinations and in masqueradeCIDRs (line 1): remove one of the two`},
	},
	{
		name: "destination in the defaults", text: "egress:\n- destinations: [10.0.0.0/8]\n  sourceAddresses: [192.0.2.0/28]",
		says: []string{`f:2:18: error: CIDR "10.0.0.0/8" is in egress[0].destinations and in the defaults of nonMasqueradeCIDRs, which are in force because that key lists no IPv4 range: list there the IPv4 ranges that keep the pod's address, or [] for none`},
	},
	{
		name: "destination is link-local", text: "egress:\n- destinations: [169.254.0.0/16]\n  sourceAddresses: [192.0.2.0/28]",
		says: []string{`f:2:18: error: CIDR "169.254.0.0/16" in egress[0].destinations is the link-local range: write "masqLinkLocal: true" as well`},
	},
	{
		name: "too many items", text: "egress:\n" + manyGroups(policy.MaxEgress+2),
		says: []string{fmt.Sprintf("f:%d:3: error: egress has 1001 items: put destinations with the same sourceAddresses together, so that there are at most 999", policy.MaxEgress+2)},
	},
	{name: "item in itself", text: "egress: &a [*a]", says: []string{`anchor 'a' value contains itself`}},

	// Interfaces.
	{name: "interface as a word", text: "outputInterfaces: eth0", says: []string{`f:1:19: error: outputInterfaces is the string "eth0": write a list, such as [eth0, "bond*", "!wg0"]`}},
	{name: "an exclusion without quotes", text: "outputInterfaces: [eth0, !wg0 ]", says: []string{`f:1:26: error: outputInterfaces[1] is empty: write a name such as eth0, or remove the item; one that begins with an exclamation mark needs quotes: "!wg0"`}},
	{name: "a number for an interface", text: "outputInterfaces: [12]", says: []string{`f:1:20: error: outputInterfaces[0] is the number 12: write the name of an interface, in quotes if it is a number`}},
	{
		name: "bad patterns", text: "outputInterfaces:\n- '*'\n- eth/0\n- averylonginterface\n- '!'\n",
		says: []string{
			`f:2:3: error: outputInterfaces[0]: interface "*" means every interface`, `f:3:3: error: outputInterfaces[1]: interface "eth/0": want a name without blanks`,
			`f:4:3: error: outputInterfaces[2]: interface "averylonginterface": want at most 15 characters`, `f:5:3: error: outputInterfaces[3]: interface "!": want a name`,
		},
	},

	// Settings.
	{name: "sources in other words", text: "sources: everything", says: []string{`f:1:10: error: sources is the string "everything": write pods, or all`}},
	{name: "sources as a list", text: "sources: [pods]", says: []string{`f:1:10: error: sources is a list: write pods, or all`}},
	{name: "randomFully in quotes", text: "randomFully: 'true'", says: []string{`f:1:14: error: randomFully is the string "true": write true or false, without quotes`}},
	{name: "no ports", text: "toPorts: ''", says: []string{`f:1:10: error: toPorts is the string "": write ranges such as "1024-29999,61000-65535", or auto`}},
	{name: "ports as a list", text: "toPorts: [1-2]", says: []string{`f:1:10: error: toPorts is a list: write ranges such as`}},
	{name: "auto beside ranges", text: "toPorts: auto,1-2", says: []string{`f:1:10: error: toPorts: port ranges "auto,1-2": want "auto" alone, or ranges alone: write ranges such as`}},
	{name: "port ranges the wrong way round", text: "toPorts: 20-10", says: []string{`f:1:10: error: toPorts: port range "20-10": want FIRST-LAST or one port, between 1 and 65535`}},
	{name: "too high a port", text: "toPorts: 65536", says: []string{`toPorts: port range "65536": want FIRST-LAST`}},
	{name: "auto with a capital", text: "toPorts: Auto", says: []string{`toPorts: port range "Auto": want FIRST-LAST`}},
	{
		name: "traffic of the node beside all", text: "sources: all\nnodeTraffic: true",
		says: []string{`f:2:1: error: nodeTraffic: true says nothing beside sources: all (line 1), which is about all traffic already: remove one of the two`},
	},
	{
		name: "traffic of the node beside the flag", opts: Options{Given: []string{"sources"}, Settings: policy.Settings{Sources: policy.SourcesAll}}, text: "sources: pods\nnodeTraffic: true",
		says: []string{`f:2:1: error: nodeTraffic: true says nothing beside sources: all (the flag --sources)`},
	},
	{name: "annotations in other words", text: "podAnnotations: some", says: []string{`f:1:17: error: podAnnotations is the string "some": write allow, deny, or a list of annotations, such as [ip-masq-agent/source-addresses]`}},
	{name: "an annotation that is none", text: "podAnnotations: [masquerade]", says: []string{`f:1:18: error: podAnnotations[0] is the string "masquerade": write ip-masq-agent/masquerade, or ip-masq-agent/source-addresses`}},

	// Keys.
	{name: "unknown key", text: "nonMasqueradeCIDR: []", says: []string{`f:1:1: error: unknown key "nonMasqueradeCIDR": did you mean nonMasqueradeCIDRs?`}},
	{name: "letter case", text: "\nnonmasqueradecidrs: []", says: []string{`f:2:1: error: unknown key "nonmasqueradecidrs": did you mean nonMasqueradeCIDRs?`}},
	{name: "letter case in JSON", text: "{\n \"CidrLimit\": 64}", says: []string{`f:2:2: error: unknown key "CidrLimit": did you mean cidrLimit?`}},
	{name: "nothing near", text: "chain: X", says: []string{`unknown key "chain": the known keys are nonMasqueradeCIDRs, masq`}},
	{name: "given twice", text: "masqLinkLocal: true\nmasqLinkLocal: true", says: []string{`f:2:1: error: key "masqLinkLocal" is given twice, first in line 1`}},
	{name: "given twice in JSON", text: `{"cidrLimit":1,"cidrLimit":1}`, says: []string{`f:1:16: error: key "cidrLimit" is given twice, first in line 1`}},
	{name: "merge key", text: "<<: {masqLinkLocal: true}", says: []string{`unknown key "<<"`}},
	{name: "list as a key", text: "masqLinkLocal: true\n? [a]\n: b", says: []string{`f:2:3: error: a key must be a single word`}},

	// No value.
	{name: "null list", text: "nonMasqueradeCIDRs:", says: []string{`f:1:1: error: nonMasqueradeCIDRs has no value: write []`}},
	{name: "null list in JSON", text: `{"nonMasqueradeCIDRs": null}`, says: []string{`nonMasqueradeCIDRs has no value: write []`}},
	{name: "null exceptions", text: "masqueradeCIDRs: ~", says: []string{`masqueradeCIDRs has no value: write []`}},
	{name: "null bool", text: "masqLinkLocal:\n", says: []string{`masqLinkLocal has no value: give it a value or remove the line`}},
	{name: "null interval", text: "resyncInterval: null", says: []string{`resyncInterval has no value: give it a value or remove the line`}},
	{name: "null limit", text: "cidrLimit:", says: []string{`cidrLimit has no value: give it a value or remove the line`}},
	{name: "null in lenient mode", text: "nonMasqueradeCIDRs:", opts: lenient, says: []string{`nonMasqueradeCIDRs has no value`}},
	{name: "null item", text: "nonMasqueradeCIDRs:\n-", says: []string{`f:2:2: error: nonMasqueradeCIDRs[0] is empty`}},
	{name: "null item in JSON", text: `{"nonMasqueradeCIDRs":["10.0.0.0/8",null]}`, says: []string{`f:1:37: error: nonMasqueradeCIDRs[1] is empty`}},
	{name: "empty item", text: "masqueradeCIDRs: [10.1.0.0/16, '']", says: []string{`masqueradeCIDRs[1] is empty`}},
	{name: "empty interval", text: "resyncInterval: ''", says: []string{`resyncInterval "" is not a duration with a unit: write "60s"`}},

	// CIDRs.
	{name: "no CIDR", text: "nonMasqueradeCIDRs: [10.0.0.0/8, abcdefg]", says: []string{`nonMasqueradeCIDRs[1]: CIDR "abcdefg" could not be parsed`}},
	{name: "no address", text: "nonMasqueradeCIDRs: [10.256.0.0/16]", says: []string{`CIDR "10.256.0.0/16" could not be parsed`}},
	{name: "leading zero", text: "nonMasqueradeCIDRs: [010.0.0.0/8]", says: []string{`CIDR "010.0.0.0/8" could not be parsed`}},
	{name: "prefix too long", text: "nonMasqueradeCIDRs: [10.0.0.0/33]", says: []string{`CIDR "10.0.0.0/33" could not be parsed`}},
	{name: "zone", text: "nonMasqueradeCIDRs: ['fe80::%eth0/64']", opts: ipv6, says: []string{`CIDR "fe80::%eth0/64" could not be parsed`}},
	{name: "host bits", text: "nonMasqueradeCIDRs: [10.0.0.1/8]", says: []string{`CIDR "10.0.0.1/8" is not aligned: use "10.0.0.0/8"`}},
	{name: "host bits, IPv6 off", text: "nonMasqueradeCIDRs: ['fd00::1/8']", says: []string{`CIDR "fd00::1/8" is not aligned: use "fd00::/8"`}},
	{name: "bare IPv4", text: "nonMasqueradeCIDRs: [10.0.0.1]", says: []string{`CIDR "10.0.0.1" has no prefix length: use "10.0.0.1/32"`}},
	{name: "bare IPv6", text: "nonMasqueradeCIDRs: ['fd00::1%eth0']", opts: ipv6, says: []string{`has no prefix length: use "fd00::1/128"`}},
	{name: "white space", text: "nonMasqueradeCIDRs: ['10.0.0.0/8 ']", says: []string{`CIDR "10.0.0.0/8 " has white space around it: use "10.0.0.0/8"`}},
	{name: "IPv4-mapped", text: "nonMasqueradeCIDRs: ['::ffff:10.0.0.0/104']", opts: ipv6, says: []string{`is an IPv4-mapped IPv6 range: use "10.0.0.0/8"`}},
	{name: "IPv6 while off", text: "nonMasqueradeCIDRs: ['fd00::/8']", says: []string{`CIDR "fd00::/8" is IPv6, which is off: start the agent with --enable-ipv6`}},
	{name: "IPv6 exception while off", text: "masqueradeCIDRs: ['::/0']", says: []string{`masqueradeCIDRs[0]: CIDR "::/0" is IPv6, which is off`}},
	{
		name: "every bad item", text: "nonMasqueradeCIDRs:\n- x\n- 10.0.0.1/8\nmasqueradeCIDRs:\n- z\n",
		says: []string{`f:2:3: error: nonMasqueradeCIDRs[0]: CIDR "x"`, `f:3:3: error: nonMasqueradeCIDRs[1]: CIDR "10.0.0.1/8"`, `f:5:3: error: masqueradeCIDRs[0]: CIDR "z"`},
	},

	{
		name: "the same bad list by its anchor", text: "nonMasqueradeCIDRs: &l\n- x\nmasqueradeCIDRs: *l",
		says: []string{`f:2:3: error: nonMasqueradeCIDRs[0]: CIDR "x"`, `f:2:3: error: masqueradeCIDRs[0]: CIDR "x"`},
	},

	// Both lists.
	{
		name: "in both lists", text: "nonMasqueradeCIDRs: [10.1.0.0/16]\nmasqueradeCIDRs: [10.1.0.0/16]",
		says: []string{`f:2:19: error: CIDR "10.1.0.0/16" is in masqueradeCIDRs and in nonMasqueradeCIDRs (line 1): remove one of the two`},
	},
	{name: "in the defaults", text: "masqueradeCIDRs: [172.16.0.0/12]", says: []string{`"172.16.0.0/12" is in masqueradeCIDRs and in the defaults of nonMasqueradeCIDRs, which are in force because that key lists no IPv4 range: list there the IPv4 ranges that keep the pod's address, or [] for none` + "\n"}},
	{
		name: "in the defaults of the other family", text: "nonMasqueradeCIDRs: [10.0.0.0/8]\nmasqueradeCIDRs: ['fc00::/7']", opts: ipv6,
		says: []string{`"fc00::/7" is in masqueradeCIDRs and in the defaults of nonMasqueradeCIDRs, which are in force because that key lists no IPv6 range: list there the IPv6 ranges that keep the pod's address` + "\n"},
	},
	{name: "in the reserved ranges", text: "masqueradeCIDRs: [100.64.0.0/10]", opts: allRanges, says: []string{`in the defaults of nonMasqueradeCIDRs`}},
	{name: "link-local exception", text: "masqueradeCIDRs: [169.254.0.0/16]", says: []string{`is the link-local range: write "masqLinkLocal: true" instead`}},
	{
		name: "link-local exception, IPv6", text: "masqueradeCIDRs: ['fe80::/10']\nmasqLinkLocal: true", opts: ipv6,
		says: []string{`is the link-local range: write "masqLinkLocalIPv6: true" instead`},
	},
	{
		name: "a bad item does not bring up the defaults", text: "nonMasqueradeCIDRs: [10.0.0.1/8]\nmasqueradeCIDRs: [172.16.0.0/12]",
		says: []string{`is not aligned`},
	},

	// Types.
	{name: "list of numbers", text: "nonMasqueradeCIDRs: [10]", says: []string{`nonMasqueradeCIDRs[0] is the number 10: write a CIDR`}},
	{name: "scalar for a list", text: "nonMasqueradeCIDRs: 10.0.0.0/8", says: []string{`nonMasqueradeCIDRs is the string "10.0.0.0/8": write a list`}},
	{name: "mapping for a list", text: "nonMasqueradeCIDRs: {a: b}", says: []string{`nonMasqueradeCIDRs is a mapping: write a list`}},
	{name: "string for a bool", text: "masqLinkLocal: 'true'", says: []string{`masqLinkLocal is the string "true": write true or false, without quotes`}},
	{name: "number for a bool", text: "masqLinkLocal: 1", says: []string{`masqLinkLocal is the number 1`}},
	{name: "bool for an item", text: "nonMasqueradeCIDRs: [yes]", says: []string{`nonMasqueradeCIDRs[0] is the boolean true`}},
	{name: "string for the limit", text: "cidrLimit: '64'", says: []string{`cidrLimit is the string "64"`}},
	{name: "negative limit", text: "cidrLimit: -1", says: []string{`cidrLimit is -1: write a whole number of 0 or more`}},
	{name: "fractional limit", text: "cidrLimit: 1.5", says: []string{`cidrLimit is 1.5: write a whole number of 0 or more`}},
	{name: "limit out of range", text: `{"cidrLimit": 1e999}`, says: []string{`cidrLimit is 1e999: write a whole number`}},
	{name: "limit exceeded", text: "nonMasqueradeCIDRs: [10.0.0.0/8, 172.16.0.0/12]\ncidrLimit: 1", says: []string{`f:2:12: error: nonMasqueradeCIDRs has 2 items, more than cidrLimit 1 allows`}},
	{name: "limit of none exceeded", text: "nonMasqueradeCIDRs: [10.0.0.0/8]\ncidrLimit: 0", says: []string{`has 1 items, more than cidrLimit 0 allows`}},

	// Intervals.
	{name: "interval as a number", text: "resyncInterval: 90", says: []string{`f:1:17: error: resyncInterval is the number 90: write "90s"`}},
	{name: "interval 0 as a number", text: "resyncInterval: 0", says: []string{`resyncInterval is the number 0: write "60s"`}},
	{name: "interval as a list", text: "resyncInterval: [60s]", says: []string{`resyncInterval is a list: write "60s"`}},
	{name: "interval without unit", text: "resyncInterval: '90'", says: []string{`resyncInterval "90" is not a duration with a unit: write "90s"`}},
	{name: "interval of zero", text: "resyncInterval: 0s", says: []string{`resyncInterval "0s" is too short: write "60s", or at least "100ms"`}},
	{name: "interval of zero without unit", text: "resyncInterval: '0'", says: []string{`resyncInterval "0" is too short`}},
	{name: "negative interval", text: "resyncInterval: -5s", says: []string{`resyncInterval "-5s" is too short`}},
	{name: "interval too short", text: "resyncInterval: 99ms", says: []string{`resyncInterval "99ms" is too short`}},
	{name: "interval too long", text: "resyncInterval: 10000000h", says: []string{`resyncInterval "10000000h" is not a duration`}},

	// Syntax.
	{name: "asterisk", text: "*", says: []string{`f:1: error: invalid YAML: did not find expected alphabetic or numeric character`}},
	{name: "brace and asterisk", text: "{*", says: []string{`f:1:2: error: invalid JSON (a file that begins with { is read as JSON): invalid character '*' looking for beginning of object key string`}},
	{name: "list", text: "[]", says: []string{`f:1:1: error: the file holds no keys`}},
	{name: "bare word", text: "\nhello", says: []string{`f:2:1: error: the file holds no keys`}},
	{name: "tab", text: "nonMasqueradeCIDRs:\n\t- 10.0.0.0/8\n", says: []string{`f:2: error: invalid YAML: a tab indents this line`}},
	{name: "tab in the first line", text: "\tmasqLinkLocal: true\n", says: []string{`f:1: error: invalid YAML: a tab indents this line`}},
	{name: "wrong indent", text: "nonMasqueradeCIDRs:\n  - 10.0.0.0/8\n - 172.16.0.0/12\n", says: []string{`f:3: error: invalid YAML`}},
	{name: "two documents", text: "masqLinkLocal: true\n---\nmasqLinkLocal: false\n", says: []string{`a second document begins here`}},
	{name: "second document is bad", text: "masqLinkLocal: true\n---\n*", says: []string{`f:3: error: invalid YAML`}},
	{name: "unknown anchor", text: "nonMasqueradeCIDRs: *a", says: []string{`unknown anchor 'a' referenced`}},
	{name: "unknown anchor in a place that the parser does not tell", text: "# 1\nmasqLinkLocal: *a", says: []string{`f: error: invalid YAML: unknown anchor`}},
	{name: "anchor in itself", text: "nonMasqueradeCIDRs: &a [*a]", says: []string{`anchor 'a' value contains itself`}},
	{name: "bad UTF-8", text: "# é\nmasqLinkLocal: \xff", says: []string{`f:2:16: error: the file is not valid UTF-8: byte 0xff`}},
	{name: "control character", text: "# é\nmasq: é\x00", says: []string{`f:2:8: error: control character U+0000 is not allowed`}},
	{name: "JSON after a byte order mark", text: "\ufeff{masqLinkLocal: true}", says: []string{`f:1:2: error: invalid JSON`}},
	{name: "JSON comma", text: "{\n\"cidrLimit\": 1,\n}", says: []string{`f:3:1: error: invalid JSON`}},
	{name: "JSON cut off", text: "{\n\"cidrLimit\": 1", says: []string{`f:2:14: error: invalid JSON (a file that begins with { is read as JSON): unexpected end of JSON input`}},
	{name: "JSON garbage", text: "{}\n  x", says: []string{`f:2:3: error: invalid JSON (a file that begins with { is read as JSON): invalid character 'x' after top-level value`}},
	{name: "two JSON texts", text: "{}{}", says: []string{`f:1:3: error: invalid JSON`}},
	{name: "YAML in braces", text: "{masqLinkLocal: true}", says: []string{`f:1:2: error: invalid JSON`}},
}

// TestParse reads like the contract: which files are accepted with which lists in force, and which are refused with what
// said about which place.
func TestParse(t *testing.T) {
	for _, c := range slices.Concat(acceptedCases, refusedCases) {
		t.Run(c.name, func(t *testing.T) {
			got, findings, err := Parse("f", []byte(c.text), c.opts)
			if c.want == nil {
				checkRefused(t, got, err)
			} else if err != nil {
				t.Fatalf("refused: %v", err)
			} else if diff := cmp.Diff(*c.want, got, sameConfig); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			checkSays(t, findings, c.says)
		})
	}
}

func checkRefused(t *testing.T, got Config, err error) {
	t.Helper()
	if err == nil {
		t.Fatalf("accepted as %+v", got)
	}
	if !reflect.DeepEqual(Config{}, got) {
		t.Errorf("half a Config beside the error: %+v", got)
	}
}

// checkSays wants exactly one finding for each text, in this order. A newline in the text is the finding's end.
func checkSays(t *testing.T, findings []Finding, says []string) {
	t.Helper()
	if len(findings) != len(says) {
		t.Fatalf("want %d findings, got %v", len(says), findings)
	}
	for i, f := range findings {
		if !strings.Contains(f.String()+"\n", says[i]) {
			t.Errorf("finding %d\n got %s\nwant %s", i, f, says[i])
		}
	}
}

// manyGroups returns count items of egress, one a line.
func manyGroups(count int) string {
	var groups strings.Builder
	for prefix := range strings.SplitSeq(manyCIDRs(count), ",") {
		fmt.Fprintf(&groups, "- {destinations: [%s], sourceAddresses: [192.0.2.0/28]}\n", prefix)
	}
	return groups.String()
}

// manyCIDRs returns count different CIDRs, separated by commas.
func manyCIDRs(count int) string {
	cidrs := make([]string, count)
	for i := range cidrs {
		cidrs[i] = fmt.Sprintf("%d.%d.%d.0/24", 11+i>>16, i>>8&255, i&255)
	}
	return strings.Join(cidrs, ",")
}

func TestDefaultIsAnEmptyFile(t *testing.T) {
	for _, opts := range []Options{{}, ipv6, allRanges} {
		parsed, _, err := Parse("f", nil, opts)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(parsed, Default(opts), sameConfig); diff != "" {
			t.Errorf("%+v: -file +default:\n%s", opts, diff)
		}
		if got := Default(opts).Files; got != nil {
			t.Errorf("sources of the defaults: %v", got)
		}
	}
}

func TestPolicy(t *testing.T) {
	settings := policy.DefaultSettings()
	if got := Default(Options{Settings: settings}).Policy(); !got.Equal(policy.Default(settings)) {
		t.Errorf("the default configuration makes %+v", got)
	}
	c := Config{
		Settings: settings, NonMasquerade: prefixList("10.0.0.0/8"), Masquerade: prefixList("10.1.0.0/16"),
		MasqLinkLocal: true, MasqLinkLocalIPv6: true,
	}
	want := policy.Policy{
		Settings: settings, NonMasquerade: prefixList("10.0.0.0/8"), Masquerade: prefixList("10.1.0.0/16"),
		MasqLinkLocal: true, MasqLinkLocalIPv6: true,
	}
	if got := c.Policy(); !got.Equal(want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
