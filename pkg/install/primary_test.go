package install

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWarnings: what the combination means is said before anything is changed, and not again where nothing is.
func TestWarnings(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ plugin, env, words string }{
		"bridge":                               {`{"type":"bridge","ipMasq":false}`, "", ""},
		"flannel, nothing known":               {`{"type":"flannel","subnetFile":"ENV","delegate":{}}`, "", "10-a.conflist --ip-masq ipMasq"},
		"flanneld masquerades":                 {`{"type":"flannel","subnetFile":"ENV","delegate":{}}`, "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_IPMASQ=true\n", "ENV FLANNEL_IPMASQ=true --ip-masq"},
		"the bridge does, because nobody else": {`{"type":"flannel","subnetFile":"ENV","delegate":{}}`, "FLANNEL_IPMASQ=false\n", "ENV FLANNEL_IPMASQ=false bridge ipMasq"},
		"flannel, nobody does":                 {`{"type":"flannel","subnetFile":"ENV","delegate":{"ipMasq":false}}`, "FLANNEL_IPMASQ=false\n", ""},
		"Calico":                               {`{"type":"calico"}`, "", "10-a.conflist natOutgoing"},
		"Cilium":                               {`{"type":"cilium-cni"}`, "", "enable-ipv4-masquerade enable-bpf-masquerade"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			env := filepath.Join(filepath.Dir(h.conf), "subnet.env")
			if test.env != "" {
				h.must(os.WriteFile(env, []byte(test.env), 0o600))
			}
			h.write("10-a.conflist", listOf(v1, strings.ReplaceAll(test.plugin, "ENV", env)))
			for _, flags := range [][]string{{"--dry-run"}, nil} {
				r := h.run("install", flags...)
				if r.code != 0 || (r.stderr == "") != (test.words == "") || strings.Count(r.stderr, "\n") > 1 {
					t.Errorf("exit %d: %q", r.code, r.stderr)
				}
				for word := range strings.FieldsSeq(test.words) {
					if word = strings.ReplaceAll(word, "ENV", env); !strings.Contains(r.stderr, word) {
						t.Errorf("no %q in %q", word, r.stderr)
					}
				}
			}
			if r := h.want(0, "", "install"); r.stderr != "" {
				t.Errorf("nothing is changed, and it says %q", r.stderr)
			}
		})
	}
}
