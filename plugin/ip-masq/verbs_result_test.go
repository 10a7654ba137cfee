package main

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func rawJSON(text string) json.RawMessage { return json.RawMessage(text) }

func unmarshal(t *testing.T, text string, to any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), to); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
}

// Results as main plugins print them, with everything that a version knows. The key nobody knows, the large integer and the
// order of the keys show whether a result was passed on or rewritten.
const (
	result110 = `{"dns": {"nameservers": ["10.0.0.10"], "domain": "cluster.local", "search": ["a", "b"], "options": ["ndots:5"]},
		"cniVersion": "1.1.0", "x-other": {"serial": 9007199254740993, "url": "a<b>&c"},
		"interfaces": [{"name": "cni0", "mac": "00:00:5e:00:53:01", "mtu": 1500},
			{"name": "eth0", "mac": "00:00:5e:00:53:02", "mtu": 1450, "sandbox": "/run/netns/a", "socketPath": "/run/a.sock", "pciID": "0000:00:1f.6"}],
		"ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 1}],
		"routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1", "mtu": 1400, "advmss": 1360, "priority": 100, "table": 254, "scope": 0}]}`
	result100 = `{"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "sandbox": "/run/netns/a"}],
		"ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 0}],
		"routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}], "dns": {"nameservers": ["10.0.0.10"]}}`
	result040 = `{"cniVersion": "0.4.0", "interfaces": [{"name": "eth0", "sandbox": "/run/netns/a"}],
		"ips": [{"version": "4", "address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 0}],
		"routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}], "dns": {"nameservers": ["10.0.0.10"]}}`
	result110in100 = `{"cniVersion": "1.0.0", "interfaces": [{"name": "cni0", "mac": "00:00:5e:00:53:01", "mtu": 1500},
			{"name": "eth0", "mac": "00:00:5e:00:53:02", "mtu": 1450, "sandbox": "/run/netns/a", "socketPath": "/run/a.sock", "pciID": "0000:00:1f.6"}],
		"ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 1}],
		"routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1", "mtu": 1400, "advmss": 1360, "priority": 100, "table": 254, "scope": 0}],
		"dns": {"nameservers": ["10.0.0.10"], "domain": "cluster.local", "search": ["a", "b"], "options": ["ndots:5"]}}`
)

// TestResultPassesThrough is A13 and A14. In the configuration's own version the bytes stay, white space apart; otherwise the
// result is what the library makes of it in that version.
func TestResultPassesThrough(t *testing.T) {
	tests := []struct {
		name     string
		version  string
		previous string
		want     string // empty: the same bytes
	}{
		{"A14 everything that 1.1.0 knows", "1.1.0", result110, ""},
		{"A14 1.0.0", "1.0.0", result100, ""},
		{"A14 0.4.0", "0.4.0", result040, ""},
		{"A14 no interfaces", "1.1.0", `{"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.2/24"}], "dns": {}}`, ""},
		{"A14 nothing at all", "1.1.0", `{"cniVersion": "1.1.0"}`, ""},
		{"A13 config 1.1.0, result 1.1.0 in 1.0.0", "1.0.0", result110, result110in100},
		{"A13 config 0.4.0, result 1.0.0", "0.4.0", result100, result040},
		{"A13 config 1.0.0, result 0.4.0", "1.0.0", result040, result100},
		{
			"A13 config 0.3.1, result without a version", "0.3.1",
			`{"ips": [{"version": "4", "address": "10.1.0.2/24"}]}`,
			`{"cniVersion": "0.3.1", "ips": [{"version": "4", "address": "10.1.0.2/24"}], "dns": {}}`,
		},
		{
			"A13 config 1.1.0, result 0.3.0", "1.1.0",
			`{"cniVersion": "0.3.0", "ips": [{"version": "4", "address": "10.1.0.2/24"}], "dns": {}}`,
			`{"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.2/24"}]}`,
		},
	}
	eachVariant(t, func(t *testing.T, v variant) {
		h := newHost(t, v)
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				r := h.request("ADD", "a").set("cniVersion", tt.version).set("prevResult", rawJSON(tt.previous))
				got := h.must(t, r).Stdout
				if tt.want != "" {
					var gotValue, wantValue any
					unmarshal(t, got, &gotValue)
					unmarshal(t, tt.want, &wantValue)
					if diff := cmp.Diff(wantValue, gotValue); diff != "" {
						t.Errorf("-want +got:\n%s", diff)
					}
				} else if compact(t, got) != compact(t, tt.previous) {
					t.Errorf("got  %s\nwant %s", compact(t, got), compact(t, tt.previous))
				}
				h.del(t, "a")
			})
		}
	})
}
