package conflicts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

func TestConflists(t *testing.T) {
	tests := []struct {
		name, plugins string
		want          []string // "OWNER: plugins[...] KEY"
	}{
		{name: "bridge", plugins: `{"type":"bridge","ipMasq":true},{"type":"ip-masq"}`, want: []string{`CNI plugin bridge (ipMasq): plugins[0] "ipMasq": true`}},
		{name: "ptp behind another", plugins: `{"type":"tuning"},{"type":"ptp","ipMasq":true},{"type":"ip-masq"}`, want: []string{`CNI plugin ptp (ipMasq): plugins[1] "ipMasq": true`}},
		{name: "quoted", plugins: `{"type":"bridge","ipMasq":"true"},{"type":"ip-masq"}`, want: []string{`CNI plugin bridge (ipMasq): plugins[0] "ipMasq": "true"`}},
		{
			name: "flannel", plugins: `{"type":"flannel","delegate":{"isDefaultGateway":true,"ipMasq":true}},{"type":"ip-masq"}`,
			want: []string{`CNI plugin flannel (ipMasq): plugins[0].delegate "ipMasq": true`},
		},
		{name: "masq", plugins: `{"type":"flannel","masq":true},{"type":"ip-masq"}`, want: []string{`CNI plugin flannel (masq): plugins[0] "masq": true`}},
		{name: "off", plugins: `{"type":"bridge","ipMasq":false},{"type":"flannel","delegate":{"ipMasq":false}},{"type":"ip-masq"}`},
		{name: "not set", plugins: `{"type":"bridge"},{"type":"ip-masq"}`},
		{name: "without us", plugins: `{"type":"bridge","ipMasq":true}`},
		{name: "we keep out", plugins: `{"type":"bridge","ipMasq":true},{"type":"ip-masq","masquerade":false}`},
		{name: "odd", plugins: `{"type":7,"ipMasq":[]},{"delegate":3},{"type":"ip-masq"}`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			found, err := conflist("/conf", []byte(`{"name":"n","plugins":[`+test.plugins+`]}`))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, c := range found {
				got = append(got, c.Owner+": "+strings.TrimPrefix(c.Where, "/conf ")+" "+c.Rule)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("conflicts (-want +got):\n%s", diff)
			}
		})
	}
}

func TestConflistDirectory(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"20-b.conflist": `{"plugins":[{"type":"ip-masq"},{"type":"bridge","ipMasq":true}]}`,
		"10-a.conf":     `{"type":"bridge","ipMasq":true}`,
		"15-c.conflist": `{"plugins":[{"type":"bri`,
		"30-d.conflist": `{"plugins":[{"type":"ptp","ipMasq":true},{"type":"ip-masq"}]}`,
		"05-e.bak":      `{"plugins":[{"type":"ptp","ipMasq":true},{"type":"ip-masq"}]}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found, err := conflists(dir)
	if err == nil || !strings.Contains(err.Error(), "15-c.conflist") {
		t.Errorf("error %v, want one that names the half-written file", err)
	}
	var got []string
	for _, c := range found {
		got = append(got, c.Where)
	}
	want := []string{filepath.Join(dir, "20-b.conflist") + " plugins[1]", filepath.Join(dir, "30-d.conflist") + " plugins[0]"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("places (-want +got):\n%s", diff)
	}
	if found, err := conflists(filepath.Join(dir, "nowhere")); found != nil || err != nil {
		t.Errorf("a directory that is not there: %v, %v", found, err)
	}
}

// bridged is a network whose bridge masquerades, by iptables or by nftables.
const bridged = `{"cniVersion":"1.0.0","name":"net","plugins":[
  {"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":true,"ipMasqBackend":"BACKEND",
   "ipam":{"type":"host-local","ranges":[[{"subnet":"10.244.0.0/24"}],[{"subnet":"fd00:244::/64"}]],"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}}
]}`

// TestBridgePlugin lets the plugin write its rules for two pods, and finds them and the key that asked for them.
func TestBridgePlugin(t *testing.T) {
	netnstest.Require(t, "cnitool", "bridge", "host-local", "nft")
	const owner = "CNI plugin bridge or ptp (ipMasq): "
	tests := []struct {
		name, backend, variant string
		want                   []string
	}{
		{"nftables", "nftables", "nft", []string{owner + "nftables table inet cni_plugins_masquerade chain masq_checks", owner + "nftables table inet cni_plugins_masquerade chain masq_checks"}},
		{"iptables-nft", "iptables", "nft", []string{owner + "iptables-nft table nat chain CNI rule 2 (and 1 more)", owner + "ip6tables-nft table nat chain CNI rule 2 (and 1 more)"}},
		{"iptables-legacy", "iptables", "legacy", []string{owner + "iptables-legacy table nat chain CNI rule 2 (and 1 more)", owner + "ip6tables-legacy table nat chain CNI rule 2 (and 1 more)"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.backend == "nftables" {
				netnstest.RequireNFT(t, 0, 1, "is refused by the bridge plugin itself")
			}
			node := netnstest.NewNode(t)
			node.SetPATH(netnstest.IPTables(t, test.variant))
			network := node.Conflist(t, []byte(strings.Replace(bridged, "BACKEND", test.backend, 1)), nil)
			q := query()
			q.ConfDir, q.Sources = node.ConfDir, addrs("10.244.0.2", "10.244.0.3", "fd00:244::2", "fd00:244::3")
			for _, name := range []string{"a", "b"} {
				if r := node.CNI(t, "add", network, node.NewPod(t, name).Path); r.Code != 0 {
					t.Fatalf("add: %+v", r)
				}
			}
			if diff := cmp.Diff(test.want, withoutHash(brief(mustFind(t, node.Space, q)))); diff != "" {
				t.Errorf("conflicts (-want +got):\n%s", diff)
			}
		})
	}
}

// withoutHash shortens the names of the chains that the plugin makes.
func withoutHash(lines []string) []string {
	for i, line := range lines {
		if before, after, ok := strings.Cut(line, "CNI-"); ok {
			_, rest, _ := strings.Cut(after, " ")
			lines[i] = before + "CNI " + rest
		}
	}
	return lines
}
