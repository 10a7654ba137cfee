package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

// TestLocate: a prefix of the policy is found where it was written, in files of both formats and in a directory of them.
func TestLocate(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	yaml := write("ip-masq-1", "# ours\nnonMasqueradeCIDRs:\n- 10.0.0.0/8\n- 192.0.2.0/24\nmasqueradeCIDRs: [10.1.0.0/16,\n  10.2.0.0/16]\n")
	json := write("ip-masq-2", "{\"nonMasqueradeCIDRs\": [\n  \"10.9.0.0/16\"\n]}\n")
	linkLocal := write("other", "masqLinkLocal: true\nnonMasqueradeCIDRs: [\"fd00::/8\"]\n")
	for _, test := range []struct {
		path, prefix string
		want         Location
		found        bool
	}{
		{yaml, "10.0.0.0/8", Location{yaml, 3, "nonMasqueradeCIDRs"}, true},
		{yaml, "192.0.2.0/24", Location{yaml, 4, "nonMasqueradeCIDRs"}, true},
		{yaml, "10.2.0.0/16", Location{yaml, 6, "masqueradeCIDRs"}, true},
		{yaml, "fc00::/7", Location{"", 0, "nonMasqueradeCIDRs"}, true},
		{yaml, "169.254.0.0/16", Location{"", 0, "masqLinkLocal"}, true},
		{yaml, "fe80::/10", Location{"", 0, "masqLinkLocalIPv6"}, true},
		{yaml, "172.16.0.0/12", Location{}, false}, // a default that is not in force
		{json, "10.9.0.0/16", Location{json, 2, "nonMasqueradeCIDRs"}, true},
		{dir, "10.9.0.0/16", Location{json, 2, "nonMasqueradeCIDRs"}, true},
		{dir, "10.1.0.0/16", Location{yaml, 5, "masqueradeCIDRs"}, true},
		{linkLocal, "169.254.0.0/16", Location{}, false},
		{linkLocal, "10.0.0.0/8", Location{"", 0, "nonMasqueradeCIDRs"}, true},
		{linkLocal, "fd00::/8", Location{linkLocal, 2, "nonMasqueradeCIDRs"}, true},
		{filepath.Join(dir, "absent"), "10.0.0.0/8", Location{"", 0, "nonMasqueradeCIDRs"}, true},
	} {
		c, _, err := Load(Options{Path: test.path, AllowDir: true, EnableIPv6: true})
		if got, found := c.Locate(netip.MustParsePrefix(test.prefix)); err != nil || found != test.found || got != test.want {
			t.Errorf("%s in %s: %+v, %t, %v; want %+v, %t", test.prefix, test.path, got, found, err, test.want, test.found)
		}
	}
}

// TestLocateKeys: so are the other parts, by key and by the number of a group.
func TestLocateKeys(t *testing.T) {
	dir := fileTree{
		"ip-masq-a": "sources: pods\noutputInterfaces:\n- eth0\negress:\n- destinations:\n  - 203.0.113.0/24\n  sourceAddresses: [192.0.2.0/28]\n",
		"ip-masq-b": "nodeTraffic: true\ntoPorts: 1-2\negress:\n- destinations: [198.51.100.0/24]\n  sourceAddresses: [192.0.2.0/28]\n",
	}.make(t)
	c, _, err := Load(Options{Path: dir, AllowDir: true, Given: []string{"to-ports"}})
	if err != nil {
		t.Fatal(err)
	}
	a, b := filepath.Join(dir, "ip-masq-a"), filepath.Join(dir, "ip-masq-b")
	for key, want := range map[string]Location{
		"sources": {a, 1, "sources"}, "outputInterfaces": {a, 2, "outputInterfaces"}, "nodeTraffic": {b, 1, "nodeTraffic"},
		"toPorts": {}, "randomFully": {}, "podAnnotations": {},
	} {
		if got, found := c.LocateKey(key); got != want || found != (want.File != "") {
			t.Errorf("%s: %+v, %t, want %+v", key, got, found, want)
		}
	}
	for number, want := range []Location{{}, {a, 5, "egress[0]"}, {b, 4, "egress[0]"}, {}} {
		if got, found := c.LocateGroup(number); got != want || found != (want.File != "") {
			t.Errorf("group %d: %+v, %t, want %+v", number, got, found, want)
		}
	}
	if got, found := c.Locate(netip.MustParsePrefix("203.0.113.0/24")); !found || got != (Location{a, 6, "egress[0].destinations"}) {
		t.Errorf("a destination: %+v, %t", got, found)
	}
}
