package node

import (
	"bytes"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
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

// TestPersistedIsDecodedOnce: after a Sync wrote or read the file, its times tell nothing for a moment; its content is compared, and
// decoded only where it is another.
func TestPersistedIsDecodedOnce(t *testing.T) {
	n := New(Options{DataDir: t.TempDir()})
	p := policy.Default(policy.DefaultSettings())
	for i := range 1000 {
		p.NonMasquerade = append(p.NonMasquerade, netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 8), byte(i), 0}), 24))
	}
	if err := n.SavePolicy(p); err != nil {
		t.Fatal(err)
	}
	for _, reader := range []*Node{n, New(Options{DataDir: n.dataDir})} {
		if got := reader.readPersisted(); got == nil || !got.Equal(p) {
			t.Fatalf("read %v", got)
		}
		if allocations := testing.AllocsPerRun(5, func() { reader.readPersisted() }); allocations > 100 {
			t.Errorf("%.0f allocations for a file that is known", allocations)
		}
	}
	data, err := os.ReadFile(n.PolicyFile())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.PolicyFile(), bytes.Replace(data, []byte("20.0.7.0/24"), []byte("21.0.7.0/24"), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	p.NonMasquerade = slices.Clone(p.NonMasquerade)
	p.NonMasquerade[slices.Index(p.NonMasquerade, netip.MustParsePrefix("20.0.7.0/24"))] = netip.MustParsePrefix("21.0.7.0/24")
	if got := n.readPersisted(); got == nil || !got.Equal(p) {
		t.Error("another program's change in place, right after the file was written, is not seen")
	}
}
