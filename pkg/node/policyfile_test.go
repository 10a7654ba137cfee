package node

import (
	"errors"
	"io/fs"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

func samplePolicy() policy.Policy {
	ports, _ := policy.ParsePortRanges("1024-29999,65535")
	return policy.Policy{
		Settings:      policy.Settings{Chain: "NODE-MASQ", Sources: policy.SourcesAll, IPv6: true, ToPorts: ports},
		NonMasquerade: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")},
		Masquerade:    []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")},
		MasqLinkLocal: true,
	}
}

func TestPolicyRoundTrip(t *testing.T) {
	n := New(Options{DataDir: filepath.Join(t.TempDir(), "made", "on", "demand")})
	if _, err := n.LoadPolicy(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	want := samplePolicy()
	if err := n.SavePolicy(want); err != nil {
		t.Fatal(err)
	}
	if got, err := n.LoadPolicy(); err != nil || !got.Equal(want) {
		t.Errorf("read back %+v, %v", got, err)
	}
	want.MasqLinkLocal = false
	if err := n.SavePolicy(want); err != nil {
		t.Fatal(err)
	}
	if got, err := n.LoadPolicy(); err != nil || !got.Equal(want) {
		t.Errorf("after a change read back %+v, %v", got, err)
	}
}

const head = `{"settings":{"chain":"NODE-MASQ","sources":"all","ipv6":true,"randomFully":true},`

// TestSettings: what the plugin reads for every pod are the first bytes; what follows them plays no part, unless the first
// bytes cannot be used.
func TestSettings(t *testing.T) {
	for name, c := range map[string]struct{ file, chain string }{
		"missing":                    {"", "IP-MASQ-AGENT"},
		"good":                       {head + `"nonMasqueradeCIDRs":["10.0.0.0/8"],"masqLinkLocal":false,"masqLinkLocalIPv6":false}`, "NODE-MASQ"},
		"long":                       {head + `"nonMasqueradeCIDRs":["` + strings.Repeat(`10.0.0.0/8","`, 10000) + `10.0.0.0/8"]}`, "NODE-MASQ"},
		"corrupt tail":               {head + `"nonMasqueradeCIDRs":["10.0.`, "NODE-MASQ"},
		"nothing but a head":         {head, "NODE-MASQ"},
		"corrupt head":               {strings.Replace(head, `"all"`, `"al`, 1), "IP-MASQ-AGENT"},
		"zeros, as after a crash":    {strings.Repeat("\x00", 200), "IP-MASQ-AGENT"},
		"no JSON":                    {"chain: NODE-MASQ\n", "IP-MASQ-AGENT"},
		"a list":                     {`["settings"]`, "IP-MASQ-AGENT"},
		"another order":              {`{"nonMasqueradeCIDRs":["10.0.0.0/8"],` + strings.TrimSuffix(strings.TrimPrefix(head, "{"), ",") + `}`, "NODE-MASQ"},
		"another order, corrupt":     {`{"nonMasqueradeCIDRs":["10.0.0.1/8"],` + strings.TrimSuffix(strings.TrimPrefix(head, "{"), ",") + `}`, "IP-MASQ-AGENT"},
		"a chain that cannot be":     {strings.Replace(head, "NODE-MASQ", "A; rm -rf /", 1) + `"nonMasqueradeCIDRs":[]}`, "IP-MASQ-AGENT"},
		"sources that nobody writes": {strings.Replace(head, "all", "some", 1) + `"nonMasqueradeCIDRs":[]}`, "IP-MASQ-AGENT"},
	} {
		t.Run(name, func(t *testing.T) {
			n := New(Options{DataDir: t.TempDir(), Defaults: policy.DefaultSettings()})
			if name != "missing" {
				write(t, filepath.Join(n.dataDir, policyFile), c.file)
			}
			if got := n.settings(); got.Chain != c.chain || got.Validate() != nil {
				t.Errorf("settings %+v, want chain %s", got, c.chain)
			}
		})
	}
}
