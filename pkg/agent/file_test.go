package agent_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	defaults     = "keep 169.254.0.0/16, keep 10.0.0.0/8, keep 172.16.0.0/12, keep 192.168.0.0/16, masquerade"
	onlyOneRange = "keep 169.254.0.0/16, keep 10.0.0.0/8, masquerade"
)

// accepted are files that are taken, and what the chain says then.
var accepted = []struct{ name, file, flags, chain string }{
	{"empty", "", "", defaults},
	{"blank", "\n \n", "", defaults},
	{"only a comment", "# nothing yet\n", "", defaults},
	{"null", "null\n", "", defaults},
	{"an empty mapping", "{}\n", "", defaults},
	{"an empty list", "nonMasqueradeCIDRs: []\n", "", "keep 169.254.0.0/16, masquerade"},
	{"an empty list and link-local", "nonMasqueradeCIDRs: []\nmasqLinkLocal: true\n", "", "masquerade"},
	{"a list", "nonMasqueradeCIDRs: [10.0.0.0/8]\n", "", onlyOneRange},
	{"JSON", `{"nonMasqueradeCIDRs": ["10.0.0.0/8"], "resyncInterval": "5m"}`, "", onlyOneRange},
	{"the user's order", "nonMasqueradeCIDRs: [172.16.0.0/12, 10.0.0.0/8]\n", "", "keep 169.254.0.0/16, keep 172.16.0.0/12, keep 10.0.0.0/8, masquerade"},
	{"a duplicate and a covered prefix", "nonMasqueradeCIDRs: [10.0.0.0/8, 10.0.0.0/8, 10.1.0.0/16]\n", "", "keep 169.254.0.0/16, keep 10.0.0.0/8, keep 10.1.0.0/16, masquerade"},
	{"an exception", "masqueradeCIDRs: [10.1.0.0/16]\nnonMasqueradeCIDRs: [10.0.0.0/8]\n", "", "keep 169.254.0.0/16, masquerade 10.1.0.0/16, keep 10.0.0.0/8, masquerade"},
	{
		"an exception inside an exception", "masqueradeCIDRs: [10.0.0.0/9]\nnonMasqueradeCIDRs: [10.0.0.0/8, 10.1.0.0/16]\n", "",
		"keep 169.254.0.0/16, keep 10.1.0.0/16, masquerade 10.0.0.0/9, keep 10.0.0.0/8, masquerade",
	},
	{"an IPv6 list leaves the IPv4 default", "nonMasqueradeCIDRs: [fd00::/8]\n", "--enable-ipv6", defaults},
	{"link-local of IPv6 is not that of IPv4", "masqLinkLocalIPv6: true\n", "", defaults},
	{"at the limit", "nonMasqueradeCIDRs: [10.0.0.0/8]\ncidrLimit: 1\n", "", onlyOneRange},
	{"an unknown key, leniently", "nonMasqueradeCIDR: [10.0.0.0/8]\n", "--strict-config=false", defaults},
	{"all of IPv4", "nonMasqueradeCIDRs: [0.0.0.0/0]\n", "", "keep 169.254.0.0/16, keep, masquerade"},
	{
		"all reserved ranges", "", "--nomasq-all-reserved-ranges",
		strings.Replace(defaults, ", masquerade", ", keep 100.64.0.0/10, keep 192.0.0.0/24, keep 192.0.2.0/24, keep 192.88.99.0/24, "+
			"keep 198.18.0.0/15, keep 198.51.100.0/24, keep 203.0.113.0/24, keep 240.0.0.0/4, masquerade", 1),
	},
}

// refused are files that are not taken, and what the error says. FILE stands for the path.
var refused = []struct{ name, file, flags, says string }{
	{"list without a value", "nonMasqueradeCIDRs:\n", "", "FILE:1:1: nonMasqueradeCIDRs has no value: write [] to masquerade all destinations"},
	{"exceptions without a value", "masqueradeCIDRs: null\n", "", "FILE:1:1: masqueradeCIDRs has no value: write [] for none"},
	{"switch without a value", "masqLinkLocal:\n", "", "FILE:1:1: masqLinkLocal has no value"},
	{"interval without a value", "resyncInterval: ~\n", "", "FILE:1:1: resyncInterval has no value"},
	{"null item", "nonMasqueradeCIDRs:\n  - 10.0.0.0/8\n  -\n", "", "nonMasqueradeCIDRs[1] is empty"},
	{"empty item", "masqueradeCIDRs: ['']\n", "", "masqueradeCIDRs[0] is empty"},
	{"unknown key", "masqLinkLocal: true\nfoo: 1\n", "", `FILE:2:1: unknown key "foo": the known keys are nonMasqueradeCIDRs`},
	{"misspelt key", "\nnonMasqueradeCIDR: [10.0.0.0/8]\n", "", "FILE:2:1: unknown key \"nonMasqueradeCIDR\": did you mean nonMasqueradeCIDRs?"},
	{"other letter case", "nonmasqueradecidrs: []\n", "", "did you mean nonMasqueradeCIDRs?"},
	{"key given twice", "masqLinkLocal: true\nmasqLinkLocal: false\n", "", `FILE:2:1: key "masqLinkLocal" is given twice, first in line 1`},
	{"no CIDR", "nonMasqueradeCIDRs: [abcdefg]\n", "", `FILE:1:22: nonMasqueradeCIDRs[0]: CIDR "abcdefg" could not be parsed`},
	{"host bits", "nonMasqueradeCIDRs:\n- 10.0.0.1/8\n", "", `FILE:2:3: nonMasqueradeCIDRs[0]: CIDR "10.0.0.1/8" is not aligned: use "10.0.0.0/8"`},
	{"IPv4-mapped IPv6", "nonMasqueradeCIDRs: ['::ffff:10.0.0.0/104']\n", "--enable-ipv6", `is an IPv4-mapped IPv6 range: use "10.0.0.0/8"`},
	{"IPv6 while it is off", "nonMasqueradeCIDRs: ['fd00::/8']\n", "", `CIDR "fd00::/8" is IPv6, which is off`},
	{"in both lists", "nonMasqueradeCIDRs: [10.0.0.0/8]\nmasqueradeCIDRs: [10.0.0.0/8]\n", "", `FILE:2:19: CIDR "10.0.0.0/8" is in masqueradeCIDRs and in nonMasqueradeCIDRs (line 1)`},
	{"scalar for a list", "nonMasqueradeCIDRs: 10.0.0.0/8\n", "", `nonMasqueradeCIDRs is the string "10.0.0.0/8": write a list`},
	{"text for a switch", "masqLinkLocal: 'true'\n", "", `masqLinkLocal is the string "true": write true or false, without quotes`},
	{"a list for a file", "[]\n", "", "FILE"},
	{"bad YAML", "nonMasqueradeCIDRs: [10.0.0.0/8\nmasqLinkLocal: true\n", "", "FILE:"},
	{"bad JSON", `{"nonMasqueradeCIDRs": ["10.0.0.0/8",]}`, "", "FILE:1:"},
	{"a tab", "nonMasqueradeCIDRs:\n\t- 10.0.0.0/8\n", "", "FILE:2:"},
	{"two documents", "masqLinkLocal: true\n---\nmasqLinkLocal: false\n", "", "FILE:2"},
	{"interval of 0", "resyncInterval: 0s\n", "", `resyncInterval "0s" is too short`},
	{"negative interval", "resyncInterval: -5s\n", "", `resyncInterval "-5s" is too short`},
	{"interval without a unit", "resyncInterval: 60\n", "", `resyncInterval is the number 60: write "60s"`},
	{"over the limit", "nonMasqueradeCIDRs: [10.0.0.0/8, 11.0.0.0/8]\ncidrLimit: 1\n", "", "nonMasqueradeCIDRs has 2 items, more than cidrLimit 1 allows"},
}

func TestAcceptedFiles(t *testing.T) {
	eachIPTables(t, func(t *testing.T, r *rig) {
		for _, row := range accepted {
			t.Run(row.name, func(t *testing.T) {
				r.Write(t, row.file)
				got := r.Agent(t, "sync", strings.Fields(row.flags)...)
				if got.Code != 0 {
					t.Fatalf("exit %d\n%s", got.Code, got.Stderr)
				}
				if diff := cmp.Diff(row.chain, verdicts(r.rules(t))); diff != "" {
					t.Errorf("the chain (-want +got):\n%s", diff)
				}
				if lenient := strings.Contains(row.flags, "strict"); lenient != strings.Contains(got.Stderr, "did you mean") {
					t.Errorf("lenient is %t, stderr is %q", lenient, got.Stderr)
				}
			})
		}
	})
}

func TestRefusedFiles(t *testing.T) {
	eachIPTables(t, func(t *testing.T, r *rig) {
		r.Write(t, "nonMasqueradeCIDRs: [10.0.0.0/8]\n")
		r.Sync(t)
		policy := filepath.Join(r.DataDir, "policy.json")
		before, persisted := r.nat(t, "-S"), read(t, policy)
		for _, row := range refused {
			t.Run(row.name, func(t *testing.T) {
				r.Write(t, row.file)
				got := r.Agent(t, "sync", strings.Fields(strings.ReplaceAll(row.flags, "--enable-ipv6", ""))...)
				if row.flags != "" { // IPv6 would be switched on for the policy that stays, so these are checked without a kernel
					got = r.Agent(t, "render", strings.Fields(row.flags)...)
				}
				if says := strings.ReplaceAll(row.says, "FILE", r.Config); got.Code != 1 || !strings.Contains(strings.ReplaceAll(got.Stderr, ": error: ", ": "), says) {
					t.Errorf("exit %d, want 1 and %q:\n%s", got.Code, says, got.Stderr)
				}
				if diff := cmp.Diff(before+persisted, r.nat(t, "-S")+read(t, policy)); diff != "" {
					t.Errorf("rules and persisted policy changed (-before +after):\n%s", diff)
				}
			})
		}
	})
}

// TestIPv6UnderABadFile switches IPv6 on while the file is bad and the persisted policy knows nothing of IPv6: without the
// default of that family, pods would lose their address even to each other.
func TestIPv6UnderABadFile(t *testing.T) {
	eachIPTables(t, func(t *testing.T, r *rig) {
		r.Sync(t)
		r.Write(t, "masqLinkLocal: 1\n")
		if got := r.Agent(t, "sync", "--enable-ipv6"); got.Code != 1 {
			t.Errorf("exit %d\n%s", got.Code, got.Stderr)
		}
		chain := r.Run(t, "ip6tables", "-w", "-t", "nat", "-S", "IP-MASQ-AGENT")
		if got := verdicts(chain); got != "keep fe80::/10, keep fc00::/7, masquerade" {
			t.Errorf("the IPv6 chain says %s", got)
		}
	})
}

// TestDirectories covers the paths that are no files.
func TestDirectories(t *testing.T) {
	eachIPTables(t, func(t *testing.T, r *rig) {
		dir := t.TempDir()
		for name, text := range map[string]string{"ip-masq-a": "nonMasqueradeCIDRs: [10.0.0.0/8]\n", "ip-masq-b": "masqLinkLocal: true\n", "other": "{*"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		r.Sync(t, "--config", dir)
		if got := verdicts(r.rules(t)); got != "keep 10.0.0.0/8, masquerade" {
			t.Errorf("merged to %q", got)
		}
		if err := os.Mkdir(filepath.Join(dir, "ip-masq-c"), 0o755); err != nil {
			t.Fatal(err)
		}
		if got := r.Agent(t, "sync", "--config", dir); got.Code != 1 || !strings.Contains(got.Stderr, "ip-masq-c: is a directory where a file is expected") {
			t.Errorf("a sub-directory: exit %d\n%s", got.Code, got.Stderr)
		}
		// The default path, seen by the agent alone.
		script := `mount -t tmpfs none /etc && mkdir -p /etc/config/ip-masq-agent && exec "$0" "$@"`
		line := append([]string{"unshare", "--mount", "sh", "-c", script}, r.Command("sync")...)
		line = slices.Delete(line, 7, 9) // --config and its value
		if got := r.Try(t, line...); got.Code != 1 || !strings.Contains(got.Stderr, "/etc/config/ip-masq-agent: is a directory where a file is expected") {
			t.Errorf("a directory at the default path: exit %d\n%s", got.Code, got.Stderr)
		}
	})
}

// verdicts says in short what `iptables -S CHAIN` prints: the destinations with what happens to them, in order.
func verdicts(rules string) string {
	var short []string
	for line := range strings.Lines(rules) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != "-A" {
			continue
		}
		verdict := map[bool]string{true: "masquerade", false: "keep"}[strings.Contains(line, "-j MASQUERADE")]
		if words[2] == "-d" {
			verdict += " " + words[3]
		}
		short = append(short, verdict)
	}
	return strings.Join(short, ", ")
}
