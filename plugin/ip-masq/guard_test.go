package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// TestSizes guards what nodes download and what starts for every pod. CGO is off and symbols are stripped, as in a release.
func TestSizes(t *testing.T) {
	const mebibyte = 1 << 20
	for path, limit := range map[string]int64{testkit.Program("ip-masq"): 4 * mebibyte, testkit.Program("ip-masq-agent"): 11 * mebibyte} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if t.Logf("%s: %.2f MiB", path, float64(info.Size())/mebibyte); info.Size() > limit {
			t.Errorf("%s: %d bytes, want at most %d", path, info.Size(), limit)
		}
	}
}

// forbidden are packages that the plugin must not depend on, and why. A name stands for everything below it, too.
var forbidden = map[string]string{
	"net/http":                 "the plugin serves and fetches nothing; 3.5 MiB",
	"flag":                     "CNI plugins are configured by environment and stdin",
	"text/template":            "rules are built from values; and the linker keeps every method of every type once it is there",
	"html/template":            "see text/template",
	"crypto/tls":               "the plugin talks to nobody; a third of a millisecond at every start",
	"crypto/sha256":            "ids of owners are no secrets; its self-tests run at every start",
	"os/user":                  "looks up names in files, or through libc",
	"testing":                  "for tests only",
	"sigs.k8s.io/yaml":         "the plugin reads the policy that the agent persisted as JSON, never the config file",
	"go.yaml.in/yaml":          "see sigs.k8s.io/yaml",
	"gopkg.in/yaml.v2":         "see sigs.k8s.io/yaml",
	"gopkg.in/yaml.v3":         "see sigs.k8s.io/yaml",
	"k8s.io":                   "the plugin must work without the Kubernetes API; 27 MiB",
	"sigs.k8s.io/knftables":    "starts three processes where a netlink message does",
	"google.golang.org":        "no gRPC",
	"go.opentelemetry.io":      "tracing of programs that the plugin does not start",
	"github.com/prometheus":    "a process that lives for milliseconds has nothing to scrape",
	"github.com/spf13":         "the plugin has no command line",
	"github.com/fsnotify":      "the plugin watches nothing",
	"github.com/onsi":          "for tests only",
	"github.com/google/go-cmp": "for tests only",
	"github.com/containernetworking/cni/libcni":     "for runtimes; it imports OpenTelemetry, 1.6 MiB",
	"github.com/containernetworking/cni/pkg/invoke": "for runtimes; it imports OpenTelemetry",
	"github.com/ip-masq/ip-masq-cni/pkg/agent":      "the plugin must work without the agent",
	"github.com/ip-masq/ip-masq-cni/pkg/config":     "the agent's; the plugin reads the persisted policy",
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest":  "for tests only",
}

func TestDependencies(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := strings.Fields(string(out))
	if len(packages) < 50 {
		t.Fatalf("only %d packages", len(packages))
	}
	for _, name := range packages {
		for prefix, reason := range forbidden {
			if name == prefix || strings.HasPrefix(name, prefix+"/") {
				t.Errorf("the plugin depends on %s: %s", name, reason)
			}
		}
	}
}
