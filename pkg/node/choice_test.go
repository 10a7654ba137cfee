package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/registry"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// choices are nodes with evidence for one variant against another, weakest evidence first: each case adds what overrules the
// one before. Commands run with the host's default of the second column.
var choices = []struct {
	name, host string
	evidence   []string // shell commands in the namespace
	want       backend.Kind
	reason     string
}{
	{"the host's default", "nft", nil, backend.IPTablesNFT, "it is what the host's iptables is"},
	{"the host's other default", "legacy", nil, backend.IPTablesLegacy, "it is what the host's iptables is"},
	{
		"the kubelet's hint in legacy", "nft",
		[]string{"iptables-legacy -t mangle -N KUBE-IPTABLES-HINT"},
		backend.IPTablesLegacy, "the kubelet's hint chain is there",
	},
	{
		"the kubelet's hint in nft", "legacy",
		[]string{"iptables-nft -t mangle -N KUBE-IPTABLES-HINT"},
		backend.IPTablesNFT, "the kubelet's hint chain is there",
	},
	{
		"an older kubelet's canary", "nft",
		[]string{"iptables-legacy -t mangle -N KUBE-KUBELET-CANARY"},
		backend.IPTablesLegacy, "the kubelet's hint chain is there",
	},
	{
		"our chain in legacy, hint in nft", "nft",
		[]string{"iptables-nft -t mangle -N KUBE-IPTABLES-HINT", "iptables-legacy -t nat -N IP-MASQ-AGENT"},
		backend.IPTablesLegacy, "IP-MASQ-AGENT already stands there",
	},
	{
		"our chain in nft, hint in legacy", "legacy",
		[]string{"iptables-legacy -t mangle -N KUBE-IPTABLES-HINT", "iptables-nft -t nat -N IP-MASQ-AGENT"},
		backend.IPTablesNFT, "IP-MASQ-AGENT already stands there",
	},
	{
		"other software's chains say nothing", "nft",
		[]string{"iptables-legacy -t nat -N KUBE-SERVICES", "iptables-legacy -t mangle -N OTHERS"},
		backend.IPTablesNFT, "it is what the host's iptables is",
	},
}

func TestChoice(t *testing.T) {
	for _, c := range choices {
		t.Run(c.name, func(t *testing.T) {
			k := newKernel(t, c.host, Options{})
			for _, command := range c.evidence {
				k.Run(t, strings.Fields(command)...)
			}
			if got := k.mustSync(t); got.Backend != c.want {
				t.Errorf("chose %s, want %s", got.Backend, c.want)
			}
			if d, ok := k.Decision(); !ok || d.Kind != c.want || d.Reason != c.reason || !d.Features.RandomFully {
				t.Errorf("recorded %+v, want the reason %q", d, c.reason)
			}
		})
	}
}

// TestRecordedChoice: what is on record for this boot overrules all evidence, and what is of another boot nothing.
func TestRecordedChoice(t *testing.T) {
	for name, c := range map[string]struct {
		record string
		want   backend.Kind
	}{
		"this boot":        {`{"bootID":"` + bootID() + `","backend":"iptables-legacy","features":{"randomFully":true}}`, backend.IPTablesLegacy},
		"another boot":     {`{"bootID":"8d4e9d40-0000-0000-0000-000000000000","backend":"iptables-legacy"}`, backend.IPTablesNFT},
		"no boot":          {`{"backend":"iptables-legacy"}`, backend.IPTablesNFT},
		"a broken record":  {`{"bootID":"` + bootID(), backend.IPTablesNFT},
		"an unknown kind":  {`{"bootID":"` + bootID() + `","backend":"ipchains"}`, backend.IPTablesNFT},
		"a failed attempt": {`{"bootID":"` + bootID() + `","failure":"no usable backend"}`, backend.IPTablesNFT},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKernel(t, "nft", Options{})
			k.Run(t, "iptables-nft", "-t", "nat", "-N", "IP-MASQ-AGENT") // evidence for nft
			write(t, filepath.Join(k.stateDir, decisionFile), c.record)
			if got := k.mustSync(t); got.Backend != c.want {
				t.Errorf("chose %s, want %s", got.Backend, c.want)
			}
			if d, ok := k.Decision(); !ok || d.Kind != c.want || d.Failure != "" {
				t.Errorf("recorded %+v", d)
			}
		})
	}
}

// TestExplicitChoice: the agent's choice overrules a record that does not fit it, and not one that does.
func TestExplicitChoice(t *testing.T) {
	k := newKernel(t, "nft", Options{Choice: registry.IPTables})
	write(t, filepath.Join(k.stateDir, decisionFile), `{"bootID":"`+bootID()+`","backend":"nftables"}`)
	if got := k.mustSync(t); got.Backend != backend.IPTablesNFT {
		t.Errorf("chose %s", got.Backend)
	}
	if d, _ := k.Decision(); d.Reason != "asked for iptables" {
		t.Errorf("recorded %+v", d)
	}
	write(t, filepath.Join(k.stateDir, decisionFile), `{"bootID":"`+bootID()+`","backend":"iptables-legacy"}`)
	if got := k.mustSync(t); got.Backend != backend.IPTablesLegacy {
		t.Errorf("chose %s although the record is one of iptables", got.Backend)
	}
}

// TestProbeReadsBack puts a program in front of iptables-restore that loses rules with matches of xt modules and says nothing,
// as hosts without these modules do. The other variant is taken, and where that does the same, an error.
func TestProbeReadsBack(t *testing.T) {
	k := newKernel(t, "nft", Options{})
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	forgetful(t, k, dir, "nft")
	if got := k.mustSync(t); got.Backend != backend.IPTablesLegacy {
		t.Errorf("chose %s, whose rules do not last", got.Backend)
	}
	if rules := k.rules(t, "nft"); strings.Contains(rules, "IP-MASQ") {
		t.Errorf("the probe left something:\n%s", rules)
	}
	other := newKernel(t, "nft", Options{Choice: registry.IPTables})
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	forgetful(t, other, dir, "legacy")
	_, err := other.sync(t)
	if !errors.Is(err, ErrNoBackend) || !strings.Contains(err.Error(), "does not hold the rules") {
		t.Errorf("error %v", err)
	}
	if d, ok := other.Decision(); !ok || d.Kind != "" || d.Failure == "" {
		t.Errorf("recorded %+v, want the failure", d)
	}
	for _, variant := range netnstest.Variants() {
		if rules := other.rules(t, variant); strings.Contains(rules, "IP-MASQ") {
			t.Errorf("the probe left something:\n%s", rules)
		}
	}
}

func forgetful(t *testing.T, k *kernel, dir, variant string) {
	t.Helper()
	for _, family := range []string{"iptables-", "ip6tables-"} {
		name := family + variant + "-restore"
		program := strings.TrimSpace(k.Run(t, "sh", "-c", "command -v "+name))
		script := "#!/bin/sh\nsed '/-m addrtype/d' | " + program + ` "$@"` + "\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(strings.TrimSuffix(program, "-restore"), filepath.Join(dir, family+variant)); err != nil {
			t.Fatal(err)
		}
	}
}
