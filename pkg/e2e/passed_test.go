package e2e

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// TestAdoptsAtOnce: a pod that passed the plugin by is behind the policy within a second of its entry in the runtime's cache, also
// when the cache's directory was not there when the agent started, or was made again.
func TestAdoptsAtOnce(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		overwrite(t, filepath.Join(r.ConfDir, "10-pods.conflist"), conflist(network, plain))
		r.Write(t, never)
		agent := r.startReady(t)
		for _, name := range []string{"first", "second", "third"} {
			p := r.newPod(t, name)
			if name == "third" {
				if err := os.RemoveAll(filepath.Join(r.CacheDir, "results")); err != nil {
					t.Fatal(err)
				}
			}
			r.cache(t, p)
			took := r.eventually(t, agent, name+" pod is masqueraded", func() bool { return seenAs(p.Pod, r.Internet.IPv4) == nodeAddress })
			if took > netnstest.Limit(time.Second) {
				t.Errorf("the %s pod was masqueraded after %s", name, took)
			}
		}
	})
}

// TestAdoptionKilledAnywhere: an agent that is killed while it adopts pods, at any file that it puts in its place, leaves nothing that
// the next one does not finish: the pod that stays has rule and record, the one that went meanwhile has neither. Rules come before the
// records of what is adopted, so the kill at the first record leaves rules without any.
func TestAdoptionKilledAnywhere(t *testing.T) {
	netnstest.Require(t, "strace")
	each(t, func(t *testing.T, r *rig) {
		overwrite(t, filepath.Join(r.ConfDir, "10-pods.conflist"), conflist(network, plain))
		stays := r.newPod(t, "stays")
		for name, path := range map[string]func(goes *pod) string{
			"decision":     func(*pod) string { return filepath.Join(r.StateDir, "backend.json") },
			"first record": r.record,
			"last record":  func(*pod) string { return r.record(stays) },
			"policy":       func(*pod) string { return filepath.Join(r.DataDir, "policy.json") },
		} {
			goes := r.newPod(t, "goes-"+strings.ReplaceAll(name, " ", "-"))
			r.cache(t, stays)
			entry := r.cache(t, goes)
			// By the path, because strace counts the calls of each thread apart.
			trace := []string{"strace", "-f", "-qq", "-o", "/dev/null", "-P", path(goes), "-e", "trace=renameat", "-e", "inject=renameat:signal=KILL", "--"}
			if got := r.Try(t, append(trace, r.Command("sync")...)...); got.Code == 0 {
				t.Fatalf("%s: the sync was not killed: %s", name, got.Stderr)
			}
			if name == "first record" && (!r.hasRule(t, stays) || !r.hasRule(t, goes) || r.hasRecord(stays)) {
				t.Errorf("%s: the records came before the rules:\n%s", name, r.standing(t))
			}
			if err := os.Remove(entry); err != nil {
				t.Fatal(err)
			}
			goes.Remove()
			if got := r.Agent(t, "sync"); got.Code != 0 {
				t.Fatalf("%s: the next sync ends with %d: %s", name, got.Code, got.Stderr)
			}
			if !r.hasRule(t, stays) || !r.hasRecord(stays) || r.hasRule(t, goes) || r.hasRecord(goes) {
				t.Errorf("%s: the next sync leaves records %t, %t, want true, false, and\n%s", name, r.hasRecord(stays), r.hasRecord(goes), r.standing(t))
			}
			r.wantSeen(t, stays, nodeAddress)
			if got := r.Agent(t, "cleanup"); got.Code != 0 {
				t.Fatal(got.Stderr)
			}
			for _, dir := range []string{r.StateDir, r.DataDir} {
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// TestForgetsAtOnce: a pod that the runtime deletes without the plugin, because its list does not name it any more, loses its rule at
// once, so that the next pod with its address is judged by itself.
func TestForgetsAtOnce(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		overwrite(t, filepath.Join(r.ConfDir, "10-pods.conflist"), conflist(network, plain))
		r.Write(t, never)
		agent := r.startReady(t)
		p := r.newPod(t, "gone")
		r.add(t, p)
		r.cache(t, p)
		if !r.hasRule(t, p) {
			t.Fatalf("no rule after ADD:\n%s", r.standing(t))
		}
		time.Sleep(netnstest.Limit(200 * time.Millisecond)) // until the agent has seen the pod come
		if err := os.Remove(filepath.Join(r.CacheDir, "results", network+"-"+p.ContainerID+"-eth0")); err != nil {
			t.Fatal(err)
		}
		p.Remove()
		took := r.eventually(t, agent, "no rule has the address", func() bool { return !r.hasRule(t, p) && !r.hasRecord(p) })
		if took > netnstest.Limit(2*time.Second) {
			t.Errorf("the rule went after %s", took)
		}
	})
}

// beside are connections that a pod has while it is not behind the policy.
type beside struct {
	follow map[string]*flow // have to follow the policy
	stay   map[string]*flow // have to go on as they are
}

// openBeside opens them. One server is behind an egress gateway, one is a range that the policy keeps, and one the node's own.
func openBeside(t *testing.T, r *rig, p *netnstest.Pod) beside {
	t.Helper()
	r.sh(t, `ip addr add 192.0.2.50/32 dev lo
		nft "table ip gateway { chain c { type nat hook postrouting priority 90; ip daddr 192.0.2.77 snat to 192.0.2.9; }; }"`)
	gateway := r.Internet.AddAddr(t, "192.0.2.77")
	r.sh(t, "ip addr add 192.0.2.9/32 dev lo")
	kept := r.Internet.AddAddr(t, "203.0.113.9")
	r.sh(t, "ip route replace 203.0.113.9/32 via "+r.Internet.IPv4.String())
	r.Serve(t, netip.MustParseAddr("192.0.2.50"))
	return beside{
		follow: map[string]*flow{
			"UDP":           open(t, p, "udp", udpAt(r.Internet.IPv4)),
			"TCP":           open(t, p, "tcp", answerLines(t, r.Internet, r.Internet.IPv4)),
			"UDP over IPv6": open(t, p, "udp", udpAt(r.Internet.IPv6)),
			"TCP over IPv6": open(t, p, "tcp", answerLines(t, r.Internet, r.Internet.IPv6)),
		},
		stay: map[string]*flow{
			"TCP behind an egress gateway": open(t, p, "tcp", answerLines(t, r.Internet, gateway)),
			"TCP to a kept range":          open(t, p, "tcp", answerLines(t, r.Internet, kept)),
			"UDP to the node":              open(t, p, "udp", udpAt(netip.MustParseAddr("192.0.2.50"))),
		},
	}
}

const besidePolicy = never + "nonMasqueradeCIDRs: [10.0.0.0/8, 203.0.113.0/24, 'fc00::/7']\n"

// test compares before and after what puts the pod behind the policy.
func (b beside) test(t *testing.T, r *rig, attach func() *netnstest.Process) {
	t.Helper()
	before := map[string]string{}
	for what, f := range b.stay {
		before[what] = f.seen(t)
	}
	for what, f := range b.follow {
		if got := f.seen(t); got == nodeAddress || got == "2001:db8::1" {
			t.Fatalf("%s: seen as %s before the pod is behind the policy", what, got)
		}
	}
	entries := r.entriesOf(t, "203.0.113.9", "192.0.2.77", "192.0.2.50")
	agent := attach()
	for what, f := range b.follow {
		want := nodeAddress
		if strings.HasSuffix(what, "IPv6") {
			want = "2001:db8::1"
		}
		r.eventually(t, agent, what+" follows the policy", func() bool { return f.seen(t) == want })
	}
	for what, f := range b.stay {
		if got := f.seen(t); got != before[what] {
			t.Errorf("%s: seen as %s, before %s", what, got, before[what])
		}
	}
	if now := r.entriesOf(t, "203.0.113.9", "192.0.2.77", "192.0.2.50"); now != entries {
		t.Errorf("connections that should stay were\n%snow\n%s", entries, now)
	}
}

// entriesOf lists the connections to destinations, with the numbers by which the kernel knows them: one that is ended and comes
// back has another.
func (r *rig) entriesOf(t *testing.T, destinations ...string) string {
	t.Helper()
	var all string
	for _, destination := range destinations {
		for line := range strings.Lines(r.Run(t, "conntrack", "-L", "-f", "ipv4", "-d", destination, "-o", "id")) {
			_, id, _ := strings.Cut(line, "id=")
			all += destination + " " + id
		}
	}
	return all
}

// TestFlowsOfInstall: the agent is installed beside a pod that runs, and the pod's connections follow the policy. None is ended
// that is translated by other software, that the policy keeps, or that goes to the node itself.
func TestFlowsOfInstall(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		netnstest.Require(t, "conntrack", "nft")
		r.Write(t, besidePolicy)
		p := r.newPod(t, "a")
		b := openBeside(t, r, p.Pod)
		overwrite(t, filepath.Join(r.ConfDir, "10-pods.conflist"), conflist(network, plain))
		r.cache(t, p)
		b.test(t, r, func() *netnstest.Process { return r.startReady(t, "--enable-ipv6") })
	})
}

// TestFlowsOfAdd: the same for a pod that the plugin attaches while the agent runs.
func TestFlowsOfAdd(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		netnstest.Require(t, "conntrack", "nft")
		r.Write(t, besidePolicy)
		agent := r.startReady(t, "--enable-ipv6")
		p := r.newPod(t, "a")
		b := openBeside(t, r, p.Pod)
		b.test(t, r, func() *netnstest.Process { r.add(t, p); return agent })
	})
}

// TestFlowsAfterAPause: the agent was away when the pod came, and finds connections of before.
func TestFlowsAfterAPause(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		netnstest.Require(t, "conntrack", "nft")
		r.Write(t, besidePolicy)
		r.Sync(t, "--enable-ipv6")
		p := r.newPod(t, "a")
		b := openBeside(t, r, p.Pod)
		b.test(t, r, func() *netnstest.Process { r.add(t, p); return r.startReady(t, "--enable-ipv6") })
	})
}

// TestFlowsOfTakeOver: what a former agent masqueraded is right, so no connection breaks: each goes on, by the same port.
func TestFlowsOfTakeOver(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		f := former[0]
		r.sh(t, formerRules(f.chain, f.jump, "iptables-restore"))
		r.sh(t, strings.NewReplacer("169.254.0.0/16", "fe80::/10", "10.0.0.0/8", "fc00::/8", "172.16.0.0/12", "fd00::/9", "192.168.0.0/16", "fd80::/9").
			Replace(formerRules(f.chain, f.jump, "ip6tables-restore")))
		overwrite(t, filepath.Join(r.ConfDir, "10-pods.conflist"), conflist(network, plain))
		p := r.newPod(t, "a")
		r.cache(t, p)
		flows := map[string]*flow{
			"UDP":           open(t, p.Pod, "udp", udpAt(r.Internet.IPv4)),
			"TCP":           open(t, p.Pod, "tcp", answerLines(t, r.Internet, r.Internet.IPv4)),
			"UDP over IPv6": open(t, p.Pod, "udp", udpAt(r.Internet.IPv6)),
			"TCP over IPv6": open(t, p.Pod, "tcp", answerLines(t, r.Internet, r.Internet.IPv6)),
			"TCP, kept":     open(t, p.Pod, "tcp", answerLines(t, r.Corp, r.Corp.IPv4)),
		}
		before := map[string]string{}
		for what, f := range flows {
			before[what] = f.seenPort(t)
		}
		r.startReady(t, "--enable-ipv6")
		time.Sleep(netnstest.Limit(300 * time.Millisecond)) // connections are ended beside the loop
		for what, f := range flows {
			if got := f.seenPort(t); got != before[what] {
				t.Errorf("%s: seen as %s, before %s", what, got, before[what])
			}
		}
	})
}
