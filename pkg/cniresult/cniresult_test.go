package cniresult

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// TestAddresses: which addresses are the pod's, in what main plugins really print. The attachment is eth0 in /ns.
func TestAddresses(t *testing.T) {
	for name, c := range map[string]struct{ interfaces, ips, want string }{
		"on the pod's interface":             {`{"name": "cni0"}, {"name": "eth0", "sandbox": "/ns"}`, `{"address": "10.0.0.5/24", "interface": 1}`, "[10.0.0.5]"},
		"no interface named":                 {``, `{"address": "10.0.0.5/24"}`, "[10.0.0.5]"},
		"sandbox left empty, as by kindnet":  {`{"name": "eth0"}`, `{"address": "10.0.0.5/24", "interface": 0}`, "[10.0.0.5]"},
		"another interface inside":           {`{"name": "net1", "sandbox": "/ns"}`, `{"address": "10.0.0.5/24", "interface": 0}`, "[10.0.0.5]"},
		"the host's":                         {`{"name": "cni0"}, {"name": "eth0", "sandbox": "/ns"}`, `{"address": "10.0.0.1/24", "interface": 0}, {"address": "10.0.0.5/24", "interface": 1}`, "[10.0.0.5]"},
		"another pod's":                      {`{"name": "net1", "sandbox": "/other"}`, `{"address": "10.0.0.5/24", "interface": 0}`, "[]"},
		"an interface that is not there":     {`{"name": "eth0"}`, `{"address": "10.0.0.5/24", "interface": 7}, {"address": "10.0.0.6/24", "interface": -1}`, "[10.0.0.5 10.0.0.6]"},
		"both families, twice, out of order": {``, `{"address": "fd00::5/64"}, {"address": "10.0.0.5/24"}, {"address": "10.0.0.5/32"}`, "[10.0.0.5 fd00::5]"},
		"an IPv4-mapped one":                 {``, `{"address": "::ffff:10.0.0.5/120"}`, "[10.0.0.5]"},
		"none":                               {``, ``, "[]"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := Parse(fmt.Appendf(nil, `{"cniVersion": "1.0.0", "interfaces": [%s], "ips": [%s]}`, c.interfaces, c.ips), "")
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(r.Addresses("eth0", "/ns")); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// TestVersions: a result is read by its own version, or by the given one where it has none, and printed in any.
func TestVersions(t *testing.T) {
	const v04 = `"ips": [{"version": "4", "address": "10.0.0.5/24"}]`
	for _, c := range []struct{ text, fallback string }{
		{`{"cniVersion": "0.3.1", ` + v04 + `}`, "1.0.0"},
		{`{"cniVersion": "0.4.0", ` + v04 + `}`, "1.1.0"},
		{`{` + v04 + `}`, "0.4.0"},
		{`{"ips": [{"address": "10.0.0.5/24"}]}`, "1.0.0"},
		{`{"cniVersion": "1.1.0", "ips": [{"address": "10.0.0.5/24"}]}`, "0.3.0"},
	} {
		r, err := Parse([]byte(c.text), c.fallback)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if got := fmt.Sprint(r.Addresses("eth0", "/ns")); got != "[10.0.0.5]" {
			t.Errorf("%s: %s", c.text, got)
		}
		for _, version := range []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
			printed, err := r.As(version)
			text, _ := json.Marshal(printed)
			if err != nil || !strings.Contains(string(text), version) && !strings.Contains(c.text, version) {
				t.Errorf("%s as %s: %s, %v", c.text, version, text, err)
			}
		}
	}
}

// TestOwnVersionIsUntouched: keys that nobody knows come out as they went in.
func TestOwnVersionIsUntouched(t *testing.T) {
	const text = `{"cniVersion":"1.0.0","ips":[],"x":{"big":9007199254740993,"html":"<&>"}}`
	r, err := Parse([]byte(text), "")
	if err != nil {
		t.Fatal(err)
	}
	if printed, err := r.As("1.0.0"); err != nil || fmt.Sprintf("%s", printed) != text {
		t.Errorf("%s, %v", printed, err)
	}
}

func TestRefused(t *testing.T) {
	for _, text := range []string{"", "null", "[]", "{", `"x"`, `{"cniVersion": "9.9.9"}`, `{"cniVersion": 1}`, `{"cniVersion": "1.0.0", "ips": [{"address": "x"}]}`} {
		if r, err := Parse([]byte(text), "1.0.0"); err == nil && len(r.Addresses("eth0", "")) > 0 {
			t.Errorf("%q is read as %v", text, r.Addresses("eth0", ""))
		}
	}
}

// TestEmptyItems: the library would end the program.
func TestEmptyItems(t *testing.T) {
	for _, version := range []string{"0.2.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		for _, key := range []string{"ips", "interfaces", "routes"} {
			r, err := Parse(fmt.Appendf(nil, `{"cniVersion": %q, %q: [null]}`, version, key), "")
			if err != nil {
				continue
			}
			_, _ = r.Addresses("eth0", "/ns"), r.Sandbox("eth0")
			for _, to := range []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
				_, _ = r.As(to)
			}
		}
	}
	if _, err := Parse([]byte(`{"cniVersion": "0.4.0", "ips": [null]}`), ""); err == nil {
		t.Error("an address that is null is accepted")
	}
}

func TestSandbox(t *testing.T) {
	r, err := Parse([]byte(`{"cniVersion": "1.0.0", "interfaces": [{"name": "eth0"}, {"name": "net1", "sandbox": "/b"}, {"name": "eth0", "sandbox": "/a"}]}`), "")
	if err != nil {
		t.Fatal(err)
	}
	if a, none := r.Sandbox("eth0"), r.Sandbox("eth1"); a != "/a" || none != "" {
		t.Errorf("%q, %q", a, none)
	}
}
