package e2e

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/explain"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

const explained = never + `nonMasqueradeCIDRs: [10.0.0.0/8, 192.0.2.0/24, 10.99.0.0/24]
masqueradeCIDRs: [10.99.0.0/16]
`

// explainCases: what `explain` prints about a packet from a pod (or, with "from", from elsewhere). Those with "shown" are shown by a packet.
var explainCases = []struct {
	name, from, dst string
	flags           string
	verdict, prefix string
	reason          string
	shown           bool
}{
	{name: "no prefix", dst: "198.51.100.7", verdict: "masquerade", reason: "no prefix of the policy", shown: true},
	{name: "kept", dst: "192.0.2.2", verdict: "keep", prefix: "192.0.2.0/24", reason: "most specific prefix", shown: true},
	{name: "exception", dst: "10.99.7.7", verdict: "masquerade", prefix: "10.99.0.0/16", reason: "most specific prefix", shown: true},
	{name: "exception to the exception", dst: "10.99.0.2", verdict: "keep", prefix: "10.99.0.0/24", reason: "most specific prefix", shown: true},
	{name: "link-local", dst: "169.254.169.254", verdict: "keep", prefix: "169.254.0.0/16", reason: "most specific prefix"},
	{name: "local", dst: "192.0.2.1", verdict: "keep", reason: "an address of this node"},
	{name: "multicast", dst: "239.1.2.3", verdict: "keep", reason: "multicast"},
	{name: "not a pod", from: "10.244.9.9", dst: "198.51.100.7", verdict: "keep", reason: "no address of an attached pod"},
	{name: "not a pod, and all are masqueraded", from: "10.244.9.9", dst: "198.51.100.7", flags: "--sources=all", verdict: "masquerade", reason: "no prefix of the policy"},
	{name: "multicast, and all are masqueraded", dst: "239.1.2.3", flags: "--sources=all", verdict: "masquerade", reason: "no prefix of the policy"},
	{name: "IPv6 is off", dst: "2001:db8::2", verdict: "keep", reason: "IPv6 is off"},
	{name: "IPv6 is on", dst: "2001:db8::2", flags: "--enable-ipv6", verdict: "masquerade", reason: "no prefix of the policy"},
	{name: "IPv6 kept", dst: "fd00:99::2", flags: "--enable-ipv6", verdict: "keep", prefix: "fc00::/7", reason: "most specific prefix"},
}

// TestExplain: each answer in both forms, and held against a packet.
func TestExplain(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		p := r.attached(t, "a")
		r.Write(t, explained)
		r.Sync(t)
		r.Internet.AddAddr(t, "198.51.100.7")
		r.Corp.AddAddr(t, "10.99.7.7")
		for _, c := range explainCases {
			t.Run(c.name, func(t *testing.T) {
				src := p.Addrs[0].String()
				if strings.Contains(c.dst, ":") {
					src = p.Addrs[1].String()
				}
				if c.from != "" {
					src = c.from
				}
				args := append([]string{"--src", src, "--dst", c.dst}, strings.Fields(c.flags)...)
				got := r.Agent(t, "explain", append(args, "--output", "json")...)
				var e struct{ Src, Dst, Verdict, Prefix, Reason string }
				if err := json.Unmarshal([]byte(got.Stdout), &e); err != nil || got.Code != 0 || got.Stderr != "" {
					t.Fatalf("exit %d, %v\n%s%s", got.Code, err, got.Stdout, got.Stderr)
				}
				if e.Src != src || e.Dst != c.dst || e.Verdict != c.verdict || e.Prefix != c.prefix || !strings.Contains(e.Reason, c.reason) {
					t.Errorf("got %+v", e)
				}
				text := r.Agent(t, "explain", args...)
				if want := src + " -> " + c.dst + ": " + c.verdict + ": " + e.Reason + "\n"; !strings.Contains(text.Stdout, want) || !strings.HasPrefix(text.Stdout, "no daemon runs") {
					t.Errorf("text %q, want %q in it", text.Stdout, want)
				}
				if c.shown && (seenAs(p.Pod, netip.MustParseAddr(c.dst)) != src) != (c.verdict == "masquerade") {
					t.Errorf("the packet was seen as %s", seenAs(p.Pod, netip.MustParseAddr(c.dst)))
				}
			})
		}
	})
}

func TestExplainWantsTwoAddresses(t *testing.T) {
	netnstest.Require(t)
	r := newRig(t, testkit.Variants()[0])
	for _, args := range [][]string{nil, {"--src=10.0.0.1"}, {"--src=10.0.0.1", "--dst=x"}, {"--src=10.0.0.1", "--dst=::1"}} {
		if got := r.Agent(t, "explain", args...); got.Code != 2 || strings.Count(got.Stderr, "\n") != 1 {
			t.Errorf("%v: exit %d\n%s", args, got.Code, got.Stderr)
		}
	}
}

// TestExplainByDaemon: the daemon answers, by its own flags and by names; with other flags the command says what these would do.
func TestExplainByDaemon(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		p := r.attached(t, "a")
		r.cache(t, p, `"cniArgs": [["K8S_POD_NAMESPACE", "default"], ["K8S_POD_NAME", "web-0"]]`)
		r.Write(t, explained)
		agent := r.startReady(t, "--enable-ipv6", "--cni-cache-dir", r.CacheDir)
		ask := func(t *testing.T, args ...string) (a explain.Answer) {
			t.Helper()
			got := r.Agent(t, "explain", append(args, "--output", "json")...)
			if err := json.Unmarshal([]byte(got.Stdout), &a); err != nil || got.Code != 0 || got.Stderr != "" {
				t.Fatalf("exit %d, %v\n%s%s", got.Code, err, got.Stdout, got.Stderr)
			}
			return a
		}
		for _, src := range []string{"default/web-0", p.Addrs[1].String()} {
			a := ask(t, "--src", src, "--dst", "[2001:db8::2]:7777", "--proto", "udp")
			if a.Daemon != (explain.Daemon{Running: true, Responding: true}) || a.Source != p.Addrs[1] || a.Pod == nil || a.Pod.String() != "default/web-0" ||
				a.Verdict != "masquerade" || a.Kernel != explain.Equal || a.SourceAfter == nil || a.SourceAfter.String() != "2001:db8::1" || len(a.Obstacles) != 0 {
				t.Errorf("%s: %+v", src, a)
			}
		}
		if got := r.Agent(t, "explain", "--src", "default/web-1", "--dst", "192.0.2.2"); got.Code != 1 || !strings.Contains(got.Stderr, "default/web-1") {
			t.Errorf("a pod that is not there: exit %d, %s", got.Code, got.Stderr)
		}
		if a := ask(t, "--src", p.Addrs[0].String(), "--dst", "198.51.100.7", "--sources", "all"); !a.Daemon.Running || a.Daemon.Responding || a.Verdict != "masquerade" {
			t.Errorf("with other flags: %+v", a)
		}
		r.Write(t, "nonMasqueradeCIDRs: [10.0.0.1/8]\n")
		r.eventually(t, agent, "the bad configuration is named", func() bool {
			a := ask(t, "--src", "default/web-0", "--dst", "192.0.2.2")
			return hasObstacle(a, explain.ConfigBad) && a.Verdict == "keep" && a.File != nil && strings.HasSuffix(*a.File, "policy.json")
		})
	})
}

// TestExplainConnection: a connection that began under another policy keeps its translation, and is named.
func TestExplainConnection(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		p := r.attached(t, "a")
		r.Write(t, never+"nonMasqueradeCIDRs: [192.0.2.0/24]\n")
		r.Sync(t)
		f := open(t, p.Pod, "udp", udpAt(r.Internet.IPv4))
		if got := f.seen(t); got != p.Addrs[0].String() {
			t.Fatalf("seen as %s", got)
		}
		r.Write(t, never+"nonMasqueradeCIDRs: [192.0.2.0/24]\nmasqueradeCIDRs: [192.0.2.2/32]\n")
		r.Sync(t, "--conntrack-flush=none")
		got := r.Agent(t, "explain", "--src", p.Addrs[0].String(), "--dst", netip.AddrPortFrom(r.Internet.IPv4, netnstest.Port).String(), "--output", "json")
		var a explain.Answer
		if err := json.Unmarshal([]byte(got.Stdout), &a); err != nil {
			t.Fatalf("%v\n%s%s", err, got.Stdout, got.Stderr)
		}
		if a.Verdict != "masquerade" || a.SourceAfter == nil || a.SourceAfter.String() != nodeAddress || !hasObstacle(a, explain.Connection) {
			t.Errorf("a connection of before is not named: %s", got.Stdout)
		}
		if seen := f.seen(t); seen != p.Addrs[0].String() {
			t.Errorf("the connection is seen as %s", seen)
		}
	})
}
