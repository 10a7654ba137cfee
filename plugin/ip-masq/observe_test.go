package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/registry"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

const (
	chain     = "IP-MASQ-AGENT"
	podsChain = "IP-MASQ-AGENT-PODS"
)

// table is what one family's kernel holds for ip-masq.
type table struct {
	Roots int      // copies of the root rule
	Chain []string // the shared chain's rules
	Pods  []string // "address owner", sorted
}

// defaultTable is what the default policy gives, with these pods.
func (h *host) defaultTable(f policy.Family, pods ...string) table {
	return table{Roots: 1, Chain: h.chainOf(defaultDestinations[f]...), Pods: pods}
}

var defaultDestinations = map[policy.Family][]string{
	policy.IPv4: {"169.254.0.0/16", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"},
	policy.IPv6: {"fe80::/10", "fc00::/7"},
}

const (
	keepRule       = `-d %s -m comment --comment "ip-masq-agent: cluster-local traffic should not be subject to MASQUERADE" -m addrtype ! --dst-type LOCAL -j RETURN`
	masqueradeRule = `-m comment --comment "ip-masq-agent: outbound traffic should be subject to MASQUERADE (this match must come after cluster-local CIDR matches)" -m addrtype ! --dst-type LOCAL -j MASQUERADE --random-fully`
)

// chainOf is the shared chain for a policy that keeps the pod's address to these destinations.
func (h *host) chainOf(keep ...string) []string {
	if !h.IsIPTables() {
		return []string{"filled"}
	}
	var rules []string
	for _, prefix := range keep {
		rules = append(rules, fmt.Sprintf(keepRule, prefix))
	}
	return append(rules, masqueradeRule)
}

// podLine is one pod's rule as a table shows it.
func podLine(address, container string) string { return address + " " + idOf(container) }

// observe reads the kernel, without our code where it can: by iptables-save.
func (h *host) observe(t *testing.T, f policy.Family) table {
	t.Helper()
	if !h.IsIPTables() {
		return h.observeBackend(t, f)
	}
	var got table
	for _, line := range h.save(t, f) {
		rest, isRule := strings.CutPrefix(line, "-A ")
		name, rule, _ := strings.Cut(rest, " ")
		switch {
		case !isRule:
		case name == chain:
			got.Chain = append(got.Chain, rule)
		case name == podsChain:
			got.Pods = append(got.Pods, podOfRule(t, rule))
		case strings.HasSuffix(rule, "-j "+podsChain):
			got.Roots++
		}
	}
	slices.Sort(got.Pods)
	return got
}

// podOfRule reads `-s A/32 ! -d 224.0.0.0/4 -m comment --comment "ipmasq v1 OWNER …" -g IP-MASQ-AGENT`.
func podOfRule(t *testing.T, rule string) string {
	t.Helper()
	words := strings.Fields(rule)
	if len(words) < 11 || words[0] != "-s" || !strings.HasSuffix(rule, "-g "+chain) || !strings.Contains(rule, " ! -d ") {
		t.Fatalf("not a pod's rule: %s", rule)
	}
	address, _, _ := strings.Cut(words[1], "/")
	return address + " " + words[10]
}

func (h *host) observeBackend(t *testing.T, f policy.Family) (got table) {
	t.Helper()
	err := h.Do(func() error {
		seen, err := registry.Open("", h.Kind).Observe(context.Background(), policy.DefaultSettings(), f)
		for _, table := range seen.Tables {
			got.Roots = table.Root
			if table.Chain == "filled" {
				got.Chain = []string{"filled"}
			}
			for _, pod := range table.Pods {
				got.Pods = append(got.Pods, fmt.Sprintf("%s %s", pod.Address, pod.Owner))
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got.Pods)
	return got
}

// save is table nat of a family without comments; policies of chains keep their counters out.
func (h *host) save(t *testing.T, f policy.Family) []string {
	t.Helper()
	out := h.Run(t, h.iptables(f)+"-save", "-t", "nat")
	return slices.DeleteFunc(strings.Split(strings.TrimSpace(out), "\n"), func(line string) bool { return strings.HasPrefix(line, "#") })
}

// iptables is the name of the variant's program for a family.
func (h *host) iptables(f policy.Family) string {
	if f == policy.IPv6 {
		return "ip6tables-" + h.variant.Name
	}
	return "iptables-" + h.variant.Name
}

// nat runs iptables -t nat on the host, which has to succeed.
func (h *host) nat(t *testing.T, args ...string) {
	t.Helper()
	h.Run(t, append([]string{h.iptables(policy.IPv4), "-w", "-t", "nat"}, args...)...)
}

// restore feeds iptables-restore.
func (h *host) restore(t *testing.T, script string) {
	t.Helper()
	r := h.exec(t, netnstest.Cmd{Args: []string{h.iptables(policy.IPv4) + "-restore", "-w", "--noflush"}, Stdin: script})
	if r.Code != 0 {
		t.Fatalf("restore: %s", r.Stderr)
	}
}

// wantTable compares a family's kernel with what it should hold.
func (h *host) wantTable(t *testing.T, f policy.Family, want table) {
	t.Helper()
	slices.Sort(want.Pods)
	if diff := cmp.Diff(want, h.observe(t, f)); diff != "" {
		t.Errorf("%s, -want +got:\n%s", f, diff)
	}
}

// records lists the state directory's attachments as a table's pods.
func (h *host) records(t *testing.T) []string {
	t.Helper()
	all, err := attachment.Store{Dir: h.recordsDir()}.List()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, a := range all {
		for _, address := range a.Addresses {
			lines = append(lines, fmt.Sprintf("%s %s", address, a.ID()))
		}
	}
	slices.Sort(lines)
	return lines
}

func (h *host) recordsDir() string { return filepath.Join(h.stateDir, "attachments") }

// wantPods compares rules and records of the default policy with the pods that should be there.
func (h *host) wantPods(t *testing.T, pods ...string) {
	t.Helper()
	h.wantTable(t, policy.IPv4, h.defaultTable(policy.IPv4, pods...))
	slices.Sort(pods)
	if diff := cmp.Diff(pods, h.records(t)); diff != "" {
		t.Errorf("records, -want +got:\n%s", diff)
	}
}

// snapshot is all that a read-only verb must leave alone: rules, and files with their contents and times.
func (h *host) snapshot(t *testing.T) []string {
	t.Helper()
	var lines []string
	for _, f := range []policy.Family{policy.IPv4, policy.IPv6} {
		if h.IsIPTables() {
			lines = append(lines, h.save(t, f)...)
		} else {
			lines = append(lines, fmt.Sprint(h.observe(t, f)))
		}
	}
	for _, dir := range []string{h.stateDir, h.dataDir} {
		_ = filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
			if err != nil {
				return nil
			}
			info, err := entry.Info()
			if err == nil {
				data, _ := os.ReadFile(path)
				lines = append(lines, fmt.Sprintf("%s %s %s %q", path, info.Mode(), info.ModTime(), data))
			}
			return nil
		})
	}
	return lines
}

// unchanged runs do and fails the test when it changed anything.
func (h *host) unchanged(t *testing.T, do func()) {
	t.Helper()
	before := h.snapshot(t)
	do()
	if diff := cmp.Diff(before, h.snapshot(t)); diff != "" {
		t.Errorf("changed, -before +after:\n%s", diff)
	}
}
