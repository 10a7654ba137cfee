package policy

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
)

func TestParsePortRanges(t *testing.T) {
	for _, c := range []struct {
		text, want string // want: as printed again
		size       int
	}{
		{"", "", 0},
		{"42-44", "42-44", 3},
		{"42", "42", 1},
		{"42-42", "42", 1},
		{"42-44,80", "42-44,80", 4},
		{"42,43,44", "42,43,44", 3},
		{"43,42", "43,42", 2},
		{"80-88,42-44", "80-88,42-44", 12},
		{"42-44,42-43", "42-44,42-43", 5},
		{"42-44,82-84", "42-44,82-84", 6},
		{"1-65535", "1-65535", 65535},
	} {
		got, err := ParsePortRanges(c.text)
		if err != nil || got.String() != c.want || got.Size() != c.size {
			t.Errorf("%q: %s of size %d, error %v; want %s of size %d", c.text, got, got.Size(), err, c.want, c.size)
		}
	}
}

func TestParsePortRangesRefuses(t *testing.T) {
	for _, text := range []string{
		"42 - 44", "42, 43, 44", "42-43-44", "4x", "4x-44", "42-4x", "-44", "42-", "42-41", "-", ",", "42,", ",42",
		"0", "0-42", "0-70000", "65536", "42-65536", "+42", "0x2a", "４２", "42\n",
	} {
		if got, err := ParsePortRanges(text); err == nil || !strings.Contains(err.Error(), "between 1 and 65535") {
			t.Errorf("%q: %v, error %v", text, got, err)
		}
	}
}

func TestValidateChain(t *testing.T) {
	for name, ok := range map[string]bool{
		"IP-MASQ-AGENT": true, "A": true, "_": true, strings.Repeat("a", MaxChain): true, "a.b_c-1": true,
		"": false, strings.Repeat("a", MaxChain+1): false, "-A": false, "a b": false, "a;b": false, "ä": false, "a\nb": false, `"a"`: false, "!": false,
	} {
		if err := ValidateChain(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestValidate(t *testing.T) {
	good := Default(DefaultSettings())
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Policy){
		"no chain":           func(p *Policy) { p.Settings.Chain = "" },
		"no sources":         func(p *Policy) { p.Settings.Sources = "" },
		"host bits":          func(p *Policy) { p.NonMasquerade = []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")} },
		"IPv4-mapped":        func(p *Policy) { p.Masquerade = []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")} },
		"too many groups":    func(p *Policy) { p.Egress = make([]Egress, MaxEgress+1) },
		"a prefix of naught": func(p *Policy) { p.Masquerade = []netip.Prefix{{}} },
	} {
		p := Default(DefaultSettings())
		change(&p)
		if p.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestJSON: the persisted form comes back equal, and every part of a policy counts in a comparison.
func TestJSON(t *testing.T) {
	p := parse("10.0.0.0/8 fd00::/8 !10.1.0.0/16")
	p.Settings = Settings{Chain: "A", Sources: SourcesAll, IPv6: true, RandomFully: true, ToPorts: PortRanges{{1, 2}}}
	data, err := json.Marshal(p)
	if err != nil || !strings.HasPrefix(string(data), `{"settings":{`) {
		t.Fatalf("%s, %v; want the settings first", data, err)
	}
	var back Policy
	if err := json.Unmarshal(data, &back); err != nil || !back.Equal(p) {
		t.Errorf("%+v, %v", back, err)
	}
	for name, change := range map[string]func(*Policy){
		"chain": func(p *Policy) { p.Settings.Chain = "B" }, "sources": func(p *Policy) { p.Settings.Sources = SourcesPods },
		"IPv6": func(p *Policy) { p.Settings.IPv6 = false }, "random": func(p *Policy) { p.Settings.RandomFully = false },
		"ports": func(p *Policy) { p.Settings.ToPorts = nil }, "list": func(p *Policy) { p.NonMasquerade = p.NonMasquerade[:1] },
		"exceptions": func(p *Policy) { p.Masquerade = nil }, "link-local": func(p *Policy) { p.MasqLinkLocal = true },
		"link-local of IPv6": func(p *Policy) { p.MasqLinkLocalIPv6 = true },
		"order":              func(p *Policy) { p.NonMasquerade = []netip.Prefix{p.NonMasquerade[1], p.NonMasquerade[0]} },
	} {
		other := back
		change(&other)
		if other.Equal(p) {
			t.Errorf("a change of %s is not noticed", name)
		}
	}
}

func TestFamily(t *testing.T) {
	for _, f := range []Family{IPv4, IPv6} {
		text, err := f.MarshalText()
		var back Family
		if err != nil || back.UnmarshalText(text) != nil || back != f {
			t.Errorf("%s became %s", f, back)
		}
		if FamilyOf(f.LinkLocal().Addr()) != f || FamilyOf(f.Multicast().Addr()) != f || f.LinkLocal().Addr().BitLen() != f.Bits() {
			t.Errorf("%s has ranges of another family", f)
		}
	}
	if new(Family).UnmarshalText([]byte("IPv5")) == nil {
		t.Error("IPv5 is a family")
	}
}
