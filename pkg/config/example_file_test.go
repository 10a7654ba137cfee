package config

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

const exampleFile = "../../conf/ip-masq-agent.example"

// commentedOut is a key of the example that is not in force there; prose has a space after the number sign.
var commentedOut = regexp.MustCompile(`(?m)^#(\w+:|  .*)`)

func TestExampleFileIsTheDefaults(t *testing.T) {
	data, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{string(data), commentedOut.ReplaceAllString(string(data), "$1")} {
		for _, opts := range []Options{{Settings: policy.DefaultSettings()}, {Settings: policy.DefaultSettings(), EnableIPv6: true}} {
			got, findings, err := Parse(exampleFile, []byte(text), opts)
			if err != nil || len(findings) > 0 {
				t.Fatalf("findings %v, error %v", findings, err)
			}
			// The default of these is to have none, so the example has them commented out.
			got.Settings.ToPorts, got.Settings.AutoPorts, got.OutputInterfaces, got.Egress = nil, false, nil, nil
			if diff := cmp.Diff(Default(opts), got, sameConfig); diff != "" {
				t.Errorf("%+v: -default +example:\n%s", opts, diff)
			}
		}
	}
}

func TestExampleFileHasEveryKey(t *testing.T) {
	data, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	text := "\n" + commentedOut.ReplaceAllString(string(data), "$1")
	for _, key := range knownKeys {
		if !strings.Contains(text, "\n"+key+":") {
			t.Errorf("%s is not in the example", key)
		}
	}
}
