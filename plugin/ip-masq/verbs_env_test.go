package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// TestRefusals are calls that must fail before anything is written, in the kernel or on disk. Names start with the item of the
// plugin's checklist.
func TestRefusals(t *testing.T) {
	const garbage = `{"cniVersion": "1.1.0", "name": "pods", `
	tests := []struct {
		name string
		verb string
		edit func(r *request)
		code uint
		says []string
	}{
		{"A3 container id missing", "ADD", env("CNI_CONTAINERID", ""), 4, []string{"CNI_CONTAINERID"}},
		{"A3 several variables missing", "ADD", both(env("CNI_NETNS", ""), env("CNI_IFNAME", "")), 4, []string{"CNI_NETNS", "CNI_IFNAME"}},
		{"A3 unknown verb", "HELLO", nil, 4, []string{"CNI_COMMAND"}},
		{"A3 bad container id", "ADD", env("CNI_CONTAINERID", "../etc"), 4, []string{"containerID"}},
		{"A3 bad interface name", "ADD", env("CNI_IFNAME", "eth0/1"), 4, nil},
		{"A3 interface name too long", "ADD", env("CNI_IFNAME", "averyveryverylongname"), 4, nil},
		{"A3 undecodable stdin", "ADD", func(r *request) { r.stdin = garbage }, 6, nil},
		{"A3 undecodable stdin at DEL", "DEL", func(r *request) { r.stdin = garbage }, 6, nil},
		{"A3 no network name", "ADD", key("name", nil), 7, []string{"name"}},
		{"A3 bad network name", "ADD", key("name", "a b/c"), 7, nil},
		{"A3 unknown version", "ADD", key("cniVersion", "9.9.9"), 1, nil},
		{"A3 version before the first supported one", "ADD", key("cniVersion", "0.2.0"), 1, nil},
		{"A3 no version", "ADD", key("cniVersion", nil), 1, nil},
		{"A12 no prevResult", "ADD", key("prevResult", nil), 7, []string{"prevResult"}},
		{"A12 prevResult null", "ADD", key("prevResult", rawJSON("null")), 7, []string{"prevResult"}},
		{"A5 prevResult of another type", "ADD", key("prevResult", "text"), 6, []string{"prevResult"}},
		{"A5 prevResult with a bad address", "ADD", key("prevResult", rawJSON(`{"cniVersion": "1.1.0", "ips": [{"address": "10.0"}]}`)), 6, nil},
		{"A5 prevResult of an unknown version", "ADD", key("prevResult", rawJSON(`{"cniVersion": "7.0.0", "ips": []}`)), 6, nil},
		{"A5 key of the wrong type", "ADD", key("masquerade", "no"), 6, []string{"decoded"}},
		{"masqChain too long", "ADD", key("masqChain", strings.Repeat("X", 24)), 7, []string{"masqChain", "23"}},
		{"masqChain with a space", "ADD", key("masqChain", "A B"), 7, []string{"masqChain"}},
		{"masqChain that is an option", "ADD", key("masqChain", "-F"), 7, []string{"masqChain"}},
		{"masqChain bad at CHECK", "CHECK", key("masqChain", "A B"), 7, []string{"masqChain"}},
		{"masqChain bad at STATUS", "STATUS", key("masqChain", "A B"), 7, []string{"masqChain"}},
		{"backend unknown", "ADD", key("backend", "pf"), 7, []string{"backend", "pf", "auto", "iptables"}},
		{"backend unknown at STATUS", "STATUS", key("backend", "pf"), 7, []string{"backend"}},
		{"annotation that is no boolean", "ADD", key("runtimeConfig", annotated("nope")), 7, []string{"ip-masq-agent/masquerade", `"nope"`, `"false"`}},
		{"annotation that is empty", "ADD", key("runtimeConfig", annotated("")), 7, []string{"ip-masq-agent/masquerade"}},
		{"A18 namespace is the plugin's own", "ADD", env("CNI_NETNS", "/proc/self/ns/net"), 8, []string{"namespace"}},
		{"A31 no prevResult", "CHECK", key("prevResult", nil), 7, []string{"prevResult"}},
		{"A31 version without CHECK", "CHECK", func(r *request) { r.version("0.3.1") }, 1, nil},
		{"GC of a version without it", "GC", func(r *request) { r.version("1.0.0") }, 1, nil},
		{"GC with a list of another type", "GC", key("cni.dev/valid-attachments", "all"), 6, []string{"valid attachments"}},
		{"STATUS of a version without it", "STATUS", func(r *request) { r.version("1.0.0") }, 1, nil},
	}
	eachVariant(t, func(t *testing.T, v variant) {
		h := newHost(t, v)
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				r := h.request(tt.verb, "a", "10.1.0.2")
				if tt.edit != nil {
					tt.edit(r)
				}
				got := h.do(t, r).want(t, tt.code)
				for _, word := range tt.says {
					if got.err != nil && !strings.Contains(got.err.Msg, word) {
						t.Errorf("%q does not say %q", got.err.Msg, word)
					}
				}
			})
		}
		if _, err := os.Stat(h.stateDir); err == nil {
			t.Error("a refused call made the state directory")
		}
		h.wantTable(t, policy.IPv4, table{})
	})
}

func env(name, value string) func(*request) { return func(r *request) { r.setenv(name, value) } }
func key(name string, value any) func(*request) {
	return func(r *request) { r.set(name, value) }
}

func both(edits ...func(*request)) func(*request) {
	return func(r *request) {
		for _, edit := range edits {
			edit(r)
		}
	}
}

// TestAccepted are inputs that say nothing to us and must not disturb (A6, A18).
func TestAccepted(t *testing.T) {
	podArgs := "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=a;K8S_POD_INFRA_CONTAINER_ID=1;K8S_POD_UID=2"
	tests := []struct {
		name string
		edit func(r *request)
	}{
		{"A6 unknown keys", key("somebodyElses", map[string]any{"x": 1})},
		{"A6 capabilities left in", key("capabilities", map[string]any{"portMappings": true})},
		{"A6 runtimeConfig of others", key("runtimeConfig", map[string]any{"portMappings": []any{}, "bandwidth": nil})},
		{"A6 args", key("args", map[string]any{"cni": map[string]any{"ips": []string{"10.1.0.2"}}})},
		{"A6 cni.dev keys", key("cni.dev/valid-attachments", nil)},
		{"A6 CNI_ARGS of a runtime", env("CNI_ARGS", podArgs)},
		{"A6 CNI_ARGS that are none", env("CNI_ARGS", "garbage;=;a=b=c")},
		{"A7 annotation that says true", key("runtimeConfig", annotated("true"))},
		{"A7 annotation that says Yes", key("runtimeConfig", annotated("Yes"))},
		{"A7 annotation that says ON", key("runtimeConfig", annotated("ON"))},
		{"A18 the own namespace, and told so", both(env("CNI_NETNS", "/proc/self/ns/net"), env("CNI_NETNS_OVERRIDE", "1"))},
		{"masquerade true", key("masquerade", true)},
		{"an interface with quotes in its name", env("CNI_IFNAME", `e"t'h\0`)},
		{"a network with a long name", key("name", strings.Repeat("n", 200))},
		{"a long container id", env("CNI_CONTAINERID", strings.Repeat("c0ffee", 30))},
	}
	eachVariant(t, func(t *testing.T, v variant) {
		h := newHost(t, v)
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				r := h.request("ADD", "a", "10.1.0.2")
				tt.edit(r)
				h.must(t, r)
				if got := h.observe(t, policy.IPv4).Pods; len(got) != 1 {
					t.Errorf("pods %q, want one", got)
				}
				for _, verb := range []string{"CHECK", "DEL"} {
					h.must(t, r.as(verb))
				}
				h.wantPods(t)
			})
		}
	})
}

// TestVersions are A2 and A11: every version works from ADD to DEL, in the version that was asked for.
func TestVersions(t *testing.T) {
	want := []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}
	eachVariant(t, func(t *testing.T, v variant) {
		h := newHost(t, v)
		n, got := h.count(t, &request{env: map[string]string{"CNI_COMMAND": "VERSION"}, stdin: "{}"})
		var about struct {
			CNIVersion        string   `json:"cniVersion"`
			SupportedVersions []string `json:"supportedVersions"`
		}
		unmarshal(t, got.Stdout, &about)
		for _, version := range want {
			if n != 0 || got.Code != 0 || !slices.Contains(about.SupportedVersions, version) {
				t.Errorf("VERSION: exit %d, %d processes, %s", got.Code, n, got.Stdout)
			}
			h.lifeIn(t, version)
		}
	})
}

func (h *host) lifeIn(t *testing.T, version string) {
	t.Helper()
	var result struct {
		CNIVersion string `json:"cniVersion"`
	}
	unmarshal(t, h.must(t, h.request("ADD", "a", "10.1.0.2").version(version)).Stdout, &result)
	if diff := cmp.Diff(version, result.CNIVersion); diff != "" {
		t.Errorf("result, -want +got: %s", diff)
	}
	h.wantPods(t, podLine("10.1.0.2", "a"))
	if version >= "0.4.0" {
		h.must(t, h.request("CHECK", "a", "10.1.0.2").version(version))
	}
	h.must(t, h.request("DEL", "a").version(version))
	h.wantPods(t)
}

// TestWithoutAnything is how a person starts a plugin by hand: it says what it is, on stderr.
func TestWithoutAnything(t *testing.T) {
	h := newHost(t, testkit.Variants()[0])
	got := h.exec(t, (&request{stdin: "{}"}).command(h))
	if got.Stdout != "" || !strings.Contains(got.Stderr, "ip-masq") || !strings.Contains(got.Stderr, "1.1.0") {
		t.Errorf("%+v", got)
	}
}

func annotated(value string) map[string]any {
	return map[string]any{"io.kubernetes.cri.pod-annotations": map[string]string{"ip-masq-agent/masquerade": value}}
}

// TestUnknownKeys: a misspelt key has no effect, and is named where a person looks; keys of the specification are not.
func TestUnknownKeys(t *testing.T) {
	h := newHost(t, testkit.Only(backend.NFTables)[0])
	h.add(t, "first", "10.1.0.9")
	for key, says := range map[string]string{
		"masquerde": "masquerde", "MasqChain": "masqChain", "somebodyElses": "somebodyElses",
		"capabilities": "", "runtimeConfig": "", "args": "", "cni.dev/x": "", "ipMasq": "", "dns": "", "enableIPv6": "",
	} {
		r := h.request("ADD", "a", "10.1.0.2")
		if _, there := r.conf[key]; !there {
			r.set(key, map[string]any{})
		}
		switch key {
		case "MasqChain":
			r.set(key, "IP-MASQ-AGENT")
		case "enableIPv6", "ipMasq":
			r.set(key, false)
		}
		for _, verb := range []string{"ADD", "CHECK"} {
			got := h.must(t, r.as(verb))
			if (says == "" && got.Stderr != "") || !strings.Contains(got.Stderr, says) {
				t.Errorf("%s with key %q says on stderr: %q", verb, key, got.Stderr)
			}
		}
		for _, verb := range []string{"DEL", "STATUS"} { // a runtime polls STATUS
			if got := h.must(t, r.as(verb)); got.Stderr != "" {
				t.Errorf("%s with key %q says on stderr: %q", verb, key, got.Stderr)
			}
		}
	}
}
