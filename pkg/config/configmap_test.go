package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// TestConfigMapWithAnotherKey: a mounted ConfigMap without the key config is an error that names its keys; an empty directory,
// a ConfigMap that is not there yet, and other software's files beside the configuration mean the defaults.
func TestConfigMapWithAnotherKey(t *testing.T) {
	mounted := func(key string) func(t *testing.T) string {
		return func(t *testing.T) string {
			return netnstest.NewConfigMap(t, key, "nonMasqueradeCIDRs: [10.0.0.0/8]\n").Dir
		}
	}
	for name, c := range map[string]struct {
		dir   func(t *testing.T) string
		words []string // of the error; none: no error
	}{
		"another key":             {mounted("ip-masq.yaml"), []string{"no key config", "ip-masq.yaml", "--from-file=config=ip-masq.yaml"}},
		"the key, under its name": {mounted("config"), []string{"has the key config", "mount that key as ip-masq-agent"}},
		"the file":                {mounted("ip-masq-agent"), nil},
		"nothing":                 {func(t *testing.T) string { return t.TempDir() }, nil},
		"other software's": {func(t *testing.T) string {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "network"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return dir
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := Load(Options{Path: filepath.Join(c.dir(t), "ip-masq-agent")})
			if (err != nil) != (len(c.words) > 0) {
				t.Fatalf("error %v", err)
			}
			for _, word := range c.words {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q does not say %q", err, word)
				}
			}
		})
	}
}
