package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

func FuzzParse(f *testing.F) {
	for i, c := range slices.Concat(acceptedCases, refusedCases) {
		f.Add([]byte(c.text), byte(i))
	}
	paths, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, byte(0))
	}
	f.Fuzz(func(t *testing.T, data []byte, flags byte) {
		opts := Options{EnableIPv6: flags&1 > 0, AllReserved: flags&2 > 0, Lenient: flags&4 > 0, Settings: policy.DefaultSettings()}
		config, findings, err := Parse("f", data, opts)
		checkFindings(t, findings, err)
		if err == nil {
			checkSound(t, config, opts)
		}
		again, findingsAgain, _ := Parse("f", data, opts)
		if diff := cmp.Diff(config, again, sameConfig) + cmp.Diff(findings, findingsAgain); diff != "" {
			t.Errorf("a second reading differs:\n%s", diff)
		}
	})
}

// checkFindings wants an error exactly where a finding is one, and a sentence in each.
func checkFindings(t *testing.T, findings []Finding, err error) {
	isError := func(f Finding) bool { return f.Severity == Error }
	if slices.ContainsFunc(findings, isError) != (err != nil) {
		t.Errorf("findings %v, error %v", findings, err)
	}
	for _, f := range findings {
		if f.Message == "" || f.File != "f" || f.Line < 0 || f.Column < 0 || f.Line == 0 && f.Column > 0 {
			t.Errorf("finding %+v", f)
		}
	}
}

// checkSound wants what every accepted configuration promises to the renderers.
func checkSound(t *testing.T, c Config, opts Options) {
	for _, prefix := range slices.Concat(c.NonMasquerade, c.Masquerade) {
		addr := prefix.Addr()
		if !prefix.IsValid() || prefix != prefix.Masked() || addr.Is4In6() || addr.Is6() && !opts.EnableIPv6 {
			t.Errorf("prefix %s", prefix)
		}
	}
	for _, prefix := range c.Masquerade {
		if slices.Contains(c.NonMasquerade, prefix) {
			t.Errorf("%s is in both lists", prefix)
		}
	}
	if err := c.Policy().Validate(); err != nil {
		t.Error(err)
	}
	for i, e := range c.Egress {
		if len(e.Destinations) == 0 || len(e.SourceAddresses) == 0 {
			t.Errorf("egress group %d: %+v", i+1, e)
		}
	}
	if c.ResyncInterval < MinResyncInterval {
		t.Errorf("interval %s", c.ResyncInterval)
	}
}

// A file as large as they get must not delay healing, not even in one line. The bound is wide because what it guards
// against is a cost that grows with the square of the list.
func TestParseScales(t *testing.T) {
	const count = 100_000
	text := `{"nonMasqueradeCIDRs":["` + strings.ReplaceAll(manyCIDRs(count), ",", `","`) + `"]}`
	start := time.Now()
	config, _, err := Parse("f", []byte(text), Options{})
	if err != nil || len(config.NonMasquerade) != count {
		t.Fatalf("%d prefixes, error %v", len(config.NonMasquerade), err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %s", took)
	}
}

func BenchmarkParse10k(b *testing.B) {
	list := manyCIDRs(10_000)
	for name, text := range map[string]string{
		"YAML": "nonMasqueradeCIDRs:\n- " + strings.ReplaceAll(list, ",", "\n- ") + "\n",
		"JSON": `{"nonMasqueradeCIDRs":["` + strings.ReplaceAll(list, ",", `","`) + `"]}`,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := Parse("f", []byte(text), Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
