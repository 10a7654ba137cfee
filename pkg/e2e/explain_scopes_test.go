package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/explain"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// scopes is a directory of files that use every scope, line by line.
var scopes = map[string]string{
	"ip-masq-1-lists": `nonMasqueradeCIDRs:
- 10.0.0.0/8
outputInterfaces: ["!corp"]
`,
	"ip-masq-2-egress": `egress:
- destinations: [198.51.100.0/24]
  sourceAddresses: [198.18.0.0/24]
- destinations:
  - 203.0.113.0/25
  - 2001:db8:1::/48
  sourceAddresses: [198.19.0.0/16, "fd00:19::/64"]
- destinations: [203.0.113.128/25]
  sourceAddresses: [198.19.0.0/16]
  whenMissing: drop
`,
	"ip-masq-3-scope": `resyncInterval: 1h
podAnnotations: [ip-masq-agent/source-addresses]
nodeTraffic: true
`,
}

// TestExplainScopes reads as questions and answers: what decides, in which file and line, which of the node's addresses a
// connection gets and why; each answer is held against a packet.
func TestExplainScopes(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.Config = t.TempDir()
		for name, text := range scopes {
			overwrite(t, filepath.Join(r.Config, name), text)
		}
		for _, addr := range []string{"198.18.0.1/32", "198.18.0.2/32"} {
			r.Run(t, "ip", "addr", "add", addr, "dev", "lo")
		}
		for _, addr := range []string{"198.51.100.7", "203.0.113.7", "203.0.113.200", "10.50.0.9", "2001:db8:1::7"} {
			r.Internet.AddAddr(t, addr)
		}
		agent := r.startReady(t, "--enable-ipv6")
		plain, chose, wants, out, vm := r.attached(t, "plain"), r.newPod(t, "chose"), r.newPod(t, "wants"), r.newPod(t, "out"), r.newPod(t, "vm")
		for p, keys := range map[*pod][]string{
			chose: {annotated("ip-masq-agent/source-addresses", "198.18.0.2/32")},
			wants: {annotated("ip-masq-agent/masquerade", "false")},
			out:   {`"masquerade": false`},
		} {
			if got := r.plugin(t, "ADD", p, keys...); got.Code != 0 {
				t.Fatalf("ADD: %s%s", got.Stdout, got.Stderr)
			}
		}
		at := func(file string, line int) string { return fmt.Sprintf("%s:%d", filepath.Join(r.Config, file), line) }
		group, scarce, dropping := at("ip-masq-2-egress", 2), at("ip-masq-2-egress", 5), at("ip-masq-2-egress", 8)
		for _, q := range []struct {
			from     *pod
			to       string
			want     string // verdict, cause, group, pool and whenMissing, as far as there are any
			place    string
			source   string
			obstacle explain.What
			reason   string
		}{
			{plain, "192.0.2.2", "masquerade default", "", nodeAddress, "", "no prefix"},
			{plain, "10.50.0.9", "keep prefix", at("ip-masq-1-lists", 2), plain.Addrs[0].String(), "", "10.0.0.0/8"},
			{plain, "10.99.0.2", "keep interface", at("ip-masq-1-lists", 3), plain.Addrs[0].String(), explain.InterfaceLeftOut, "leaves by corp"},
			{plain, "198.51.100.7", "translate prefix 1 [198.18.0.1 198.18.0.2]", group, "198.18.0.1", "", "the last bits of " + plain.Addrs[0].String()},
			{wants, "198.51.100.7", "translate prefix 1 [198.18.0.1 198.18.0.2]", group, "198.18.0.1", explain.AnnotationRefused, "egress group 1"},
			{chose, "198.51.100.7", "translate annotation 1 [198.18.0.2]", group, "198.18.0.2", "", "the only address"},
			{chose, "192.0.2.2", "translate annotation [198.18.0.2]", "", "198.18.0.2", "", "annotation ip-masq-agent/source-addresses"},
			{chose, "10.50.0.9", "keep prefix", at("ip-masq-1-lists", 2), chose.Addrs[0].String(), "", ""},
			{plain, "203.0.113.7", "masquerade whenMissing 2 masquerade", scarce, nodeAddress, explain.AddressMissing, "no IPv4 address in 198.19.0.0/16, fd00:19::/64"},
			{plain, "2001:db8:1::7", "masquerade whenMissing 2 masquerade", at("ip-masq-2-egress", 6), "2001:db8::1", explain.AddressMissing, "no IPv6 address"},
			{plain, "203.0.113.200", "drop whenMissing 3 drop", dropping, "", explain.AddressMissing, "whenMissing is drop"},
			{out, "198.51.100.7", "keep source", "", out.Addrs[0].String(), explain.OptedOut, "keeps it"},
			{vm, "198.51.100.7", "translate prefix 1 [198.18.0.1 198.18.0.2]", group, "198.18.0.1", "", "nodeTraffic has the policy govern"},
		} {
			if q.from == vm || q.from == wants { // whose address has other last bits
				pool := []netip.Addr{netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("198.18.0.2")}
				q.source = policy.Choose(pool, q.from.Addrs[0]).String()
			}
			dst := netip.MustParseAddr(q.to)
			src := q.from.Addrs[0]
			if dst.Is6() {
				src = q.from.Addrs[1]
			}
			name := fmt.Sprintf("%s to %s", q.from.ContainerID, q.to)
			got := r.Agent(t, "explain", "--src", src.String(), "--dst", netip.AddrPortFrom(dst, netnstest.Port).String(), "--proto", "udp", "--output", "json")
			var a explain.Answer
			if err := json.Unmarshal([]byte(got.Stdout), &a); err != nil || got.Code != 0 || !a.Daemon.Responding {
				t.Fatalf("%s: exit %d, %v\n%s%s\n%s", name, got.Code, err, got.Stdout, got.Stderr, agent.Output())
			}
			if answer := brief(a); answer != q.want || a.Kernel != explain.Equal || !strings.Contains(a.Reason, q.reason) || place(a) != q.place {
				t.Errorf("%s: %s at %q, want %s at %q\n%s", name, answer, place(a), q.want, q.place, got.Stdout)
			}
			if q.obstacle != "" && !hasObstacle(a, q.obstacle) || q.obstacle == "" && len(a.Obstacles) > 0 {
				t.Errorf("%s: obstacles %v, want %q", name, a.Obstacles, q.obstacle)
			}
			if q.source == "" {
				if a.SourceAfter != nil || a.Interface != nil {
					t.Errorf("%s leaves the node: %s", name, got.Stdout)
				}
				continue
			}
			if a.SourceAfter == nil || a.SourceAfter.String() != q.source || seenAs(q.from.Pod, dst) != q.source {
				t.Errorf("%s is seen as %s, want %s\n%s", name, seenAs(q.from.Pod, dst), q.source, got.Stdout)
			}
		}
		text := r.Agent(t, "explain", "--src", plain.Addrs[0].String(), "--dst", "203.0.113.200")
		if !strings.Contains(text.Stdout, "leaves by:  no interface: the node drops the packet\n") || !strings.Contains(text.Stdout, "config:     "+dropping+" (") {
			t.Errorf("text:\n%s", text.Stdout)
		}
		r.brokenFile(t, agent, plain)
	})
}

// brokenFile: one broken file takes nothing from what the others say, nor from what it said itself while it was good.
func (r *rig) brokenFile(t *testing.T, agent *netnstest.Process, p *pod) {
	t.Helper()
	path := filepath.Join(r.Config, "ip-masq-1-lists")
	if err := os.WriteFile(path, []byte("nonMasqueradeCIDRs: [10.0.0.1/8]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r.eventually(t, agent, "the broken file is named", func() bool {
		for to, want := range map[string]string{"198.51.100.7": "translate prefix 1 [198.18.0.1 198.18.0.2]", "10.50.0.9": "keep prefix"} {
			got := r.Agent(t, "explain", "--src", p.Addrs[0].String(), "--dst", to, "--output", "json")
			var a explain.Answer
			if err := json.Unmarshal([]byte(got.Stdout), &a); err != nil || brief(a) != want || !hasObstacle(a, explain.ConfigBad) {
				return false
			}
		}
		return true
	})
}

// brief is what decides, and what an egress group has to say.
func brief(a explain.Answer) string {
	text := fmt.Sprintf("%s %s", a.Verdict, a.Cause)
	if a.Group != nil {
		text += fmt.Sprint(" ", *a.Group)
	}
	if a.Pool != nil {
		text += fmt.Sprint(" ", a.Pool)
	}
	if a.WhenMissing != nil {
		text += fmt.Sprint(" ", *a.WhenMissing)
	}
	return text
}

// place is the file and line that decides.
func place(a explain.Answer) string {
	if a.File == nil || a.Line == nil {
		return ""
	}
	return fmt.Sprintf("%s:%d", *a.File, *a.Line)
}
