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
		got, found, err := Locate(Options{Path: test.path, AllowDir: true, EnableIPv6: true}, netip.MustParsePrefix(test.prefix))
		if err != nil || found != test.found || got != test.want {
			t.Errorf("%s in %s: %+v, %t, %v; want %+v, %t", test.prefix, test.path, got, found, err, test.want, test.found)
		}
	}
	if _, _, err := Locate(Options{Path: write("bad", "nonMasqueradeCIDRs: [10.0.0.1/8]\n")}, netip.MustParsePrefix("10.0.0.0/8")); err == nil {
		t.Error("a bad file is no error")
	}
}
