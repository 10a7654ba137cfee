package attachment

import (
	"errors"
	"fmt"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// TestDecide: annotation over network over policy, and what the policy does not allow is refused whatever its value.
func TestDecide(t *testing.T) {
	const masquerade, sources = policy.MasqueradeAnnotation, policy.SourceAddressesAnnotation
	on, off := true, false
	list := policy.AllowedAnnotations([]string{masquerade, sources})
	one := func(name, value string) map[string]string { return map[string]string{name: value, "other": "x"} }
	for _, c := range []struct {
		name    string
		pod     map[string]string
		network *bool
		allowed policy.PodAnnotations
		want    string
	}{
		{"nobody asks", nil, nil, "", "in [] []"},
		{"the network is off", nil, &off, "", "out [] []"},
		{"the pod is off", one(masquerade, "false"), &on, "", "out [] []"},
		{"the pod is off, YAML", one(masquerade, "No"), nil, policy.AllowAnnotations, "out [] []"},
		{"the pod overrides its network", one(masquerade, "true"), &off, "", "in [] []"},
		{"by its name", one(masquerade, "on"), &off, list, "in [] []"},
		{"denied", one(masquerade, "false"), nil, policy.DenyAnnotations, "in [] [ip-masq-agent/masquerade]"},
		{"denied, the network is off", one(masquerade, "true"), &off, policy.DenyAnnotations, "out [] [ip-masq-agent/masquerade]"},
		{"denied, no boolean", one(masquerade, "maybe"), nil, policy.DenyAnnotations, "in [] [ip-masq-agent/masquerade]"},
		{"another is named", one(masquerade, "false"), nil, policy.PodAnnotations(sources), "in [] [ip-masq-agent/masquerade]"},
		{"no boolean", one(masquerade, "maybe"), nil, "", `annotation ip-masq-agent/masquerade: "maybe" is not a boolean: write "true" or "false"`},
		{"an empty one", one(masquerade, ""), nil, "", `annotation ip-masq-agent/masquerade: "" is not a boolean: write "true" or "false"`},
		{"addresses", one(sources, "192.0.2.0/28,192.0.2.99"), nil, list, "in [192.0.2.0/28 192.0.2.99/32] []"},
		{"addresses are not among what is allowed by default", one(sources, "192.0.2.0/28"), nil, "", "in [] [ip-masq-agent/source-addresses]"},
		{"refused addresses are not read", one(sources, "x"), nil, "", "in [] [ip-masq-agent/source-addresses]"},
		{"bad addresses", one(sources, "192.0.2.1/28"), nil, list, `annotation ip-masq-agent/source-addresses: "192.0.2.1/28" is not aligned: write "192.0.2.0/28"`},
		{"addresses of a pod that opted out", map[string]string{masquerade: "false", sources: "192.0.2.0/28"}, nil, list, "out [] []"},
		{"addresses in a network that is off", one(sources, "192.0.2.0/28"), &off, list, "out [] []"},
		{"both refused", map[string]string{masquerade: "false", sources: "x"}, nil, policy.DenyAnnotations, "in [] [ip-masq-agent/masquerade ip-masq-agent/source-addresses]"},
	} {
		a := Attachment{Asked: Asked{Annotations: c.pod, Network: c.network}}
		decided, out, err := a.Decide(c.allowed)
		got := fmt.Sprintf("%s %v %v", map[bool]string{true: "out", false: "in"}[out], decided.SourceAddresses, decided.Refused)
		if err != nil {
			got = err.Error()
			var bad *BadAnnotation
			if !errors.As(err, &bad) || bad.Name == "" {
				t.Errorf("%s: %v is no BadAnnotation", c.name, err)
			}
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if a.Asked.Annotated() != (len(c.pod) > 0) {
			t.Errorf("%s: annotated: %t", c.name, a.Asked.Annotated())
		}
	}
}
