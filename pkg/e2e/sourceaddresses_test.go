package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// TestChosenByAnnotation: a pod that names addresses of the node's leaves with one of them from its first packet on, wherever the policy
// masquerades, without an agent; others do not. An agent keeps it so, and a file that does not allow it any more ends it.
func TestChosenByAnnotation(t *testing.T) {
	const allowed = "podAnnotations: [ip-masq-agent/masquerade, ip-masq-agent/source-addresses]\n" + never
	const one, two = "192.0.2.50", "192.0.2.51"
	each(t, func(t *testing.T, r *rig) {
		r.sh(t, "ip addr add "+one+"/32 dev internet; ip addr add "+two+"/32 dev internet; ip addr add 2001:db8::50/128 dev internet nodad")
		r.Write(t, allowed)
		r.Sync(t, "--enable-ipv6")
		add := func(name, addresses string) *pod {
			t.Helper()
			p := r.newPod(t, name)
			if got := r.plugin(t, "ADD", p, annotated(policy.SourceAddressesAnnotation, addresses)); got.Code != 0 {
				t.Fatalf("ADD: %s%s", got.Stdout, got.Stderr)
			}
			return p
		}
		seen := func(when string, p *pod, ipv4, ipv6 string) {
			t.Helper()
			for to, want := range map[string]string{r.Internet.IPv4.String(): ipv4, r.Internet.IPv6.String(): ipv6, r.Corp.IPv4.String(): p.Addrs[0].String()} {
				for _, network := range []string{"udp", "tcp"} {
					from, err := p.Seen(network, netip.MustParseAddr(to))
					if err != nil || from.Addr().String() != want {
						t.Errorf("%s: %s is seen by %s over %s as %s, %v, want %s", when, p.ContainerID, to, network, from.Addr(), err, want)
					}
				}
			}
		}
		const nodeIPv6, otherIPv6 = "2001:db8::50", "2001:db8::1" // the kernel takes the newest
		chosen := add("chosen", one+","+otherIPv6)
		usual := r.attached(t, "usual")
		pool := add("pool", "192.0.2.50/31")
		absent := add("absent", "203.0.113.0/24,2001:db8:1::/48")
		byBits := map[byte]string{0: one, 1: two}[pool.Addrs[0].AsSlice()[3]%2]
		all := func(when string) {
			t.Helper()
			seen(when, chosen, one, otherIPv6)
			seen(when, usual, nodeAddress, nodeIPv6)
			seen(when, pool, byBits, nodeIPv6)
			seen(when, absent, nodeAddress, nodeIPv6)
		}
		all("after the ADDs")
		for _, p := range []*pod{chosen, usual, pool, absent} {
			if got := r.plugin(t, "CHECK", p); got.Code != 0 {
				t.Errorf("CHECK of %s: %s", p.ContainerID, got.Stdout)
			}
		}
		if got := r.Agent(t, "sync", "--enable-ipv6", "-v=2"); strings.Contains(got.Stderr, "changed=true") || !strings.Contains(got.Stderr, "changed=false") {
			t.Errorf("the sync after the ADDs wrote:\n%s", got.Stderr)
		}
		all("after a sync")

		// The address is given to another pod before the DEL of this one, which is right whatever comes first.
		heir := &pod{Pod: chosen.Pod, Owner: chosen.Owner}
		heir.ContainerID = "heir"
		if got := r.plugin(t, "ADD", heir); got.Code != 0 {
			t.Fatalf("ADD: %s", got.Stdout)
		}
		if got := r.plugin(t, "DEL", chosen); got.Code != 0 {
			t.Fatalf("DEL: %s", got.Stdout)
		}
		seen("another owner has the address", chosen, nodeAddress, nodeIPv6)
		if got := r.plugin(t, "ADD", chosen, annotated(policy.SourceAddressesAnnotation, two)); got.Code != 0 {
			t.Fatalf("ADD: %s", got.Stdout)
		}
		if got := r.plugin(t, "DEL", heir); got.Code != 0 {
			t.Fatalf("DEL: %s", got.Stdout)
		}
		seen("and gave it back", chosen, two, nodeIPv6)

		// With sources all, whoever sends is masqueraded, and a pod that chose leaves with what it chose.
		agent := r.startReady(t, "--enable-ipv6")
		r.Write(t, allowed+"sources: all\n")
		machine := r.newPod(t, "machine")
		r.eventually(t, agent, "sources all", func() bool { return seenAs(machine.Pod, r.Internet.IPv4) == nodeAddress })
		seen("sources all", pool, byBits, nodeIPv6)
		seen("sources all", chosen, two, nodeIPv6)
		seen("sources all", usual, nodeAddress, nodeIPv6)

		// Not allowed any more, and then again: what a record says counts as long as the file names the annotation.
		r.Write(t, never)
		r.eventually(t, agent, "refused", func() bool { return seenAs(pool.Pod, r.Internet.IPv4) == nodeAddress })
		seen("not allowed any more", chosen, nodeAddress, nodeIPv6)
		r.Agent(t, "sync", "--enable-ipv6") // the plugin's policy is written when the rules of both families stand
		late := add("late", one)
		seen("refused", late, nodeAddress, nodeIPv6)
		r.Write(t, allowed)
		r.eventually(t, agent, "allowed again", func() bool { return seenAs(pool.Pod, r.Internet.IPv4) == byBits })
		seen("allowed again", chosen, two, nodeIPv6)
		seen("was refused at its ADD", late, nodeAddress, nodeIPv6)

		r.Agent(t, "sync", "--enable-ipv6")
		s := r.status(t, "--enable-ipv6")
		for _, p := range s.Pods.Attached {
			want := map[string]string{"chosen": "[192.0.2.51/32]", "pool": "[192.0.2.50/31]", "absent": "[203.0.113.0/24 2001:db8:1::/48]"}[p.ContainerID]
			if want == "" {
				want = "[]"
			}
			if got := fmt.Sprint(p.SourceAddresses); got != want {
				t.Errorf("status of %s: %s, want %s", p.ContainerID, got, want)
			}
		}
		if len(s.Drift) > 0 {
			t.Errorf("drift: %+v", s.Drift)
		}

		// The node loses an address, and gets it back.
		r.sh(t, "ip addr del "+two+"/32 dev internet")
		r.eventually(t, agent, "the address is gone", func() bool { return seenAs(chosen.Pod, r.Internet.IPv4) == nodeAddress })
		r.sh(t, "ip addr add "+two+"/32 dev internet")
		r.eventually(t, agent, "the address is back", func() bool { return seenAs(chosen.Pod, r.Internet.IPv4) == two })
	})
}

// TestAdoptedWithAnnotation: the runtime's cache has the annotations of a pod that the plugin did not see.
func TestAdoptedWithAnnotation(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		overwrite(t, r.ConfDir+"/10-pods.conflist", conflist(network, plain))
		r.sh(t, "ip addr add 192.0.2.50/32 dev internet")
		r.Write(t, "podAnnotations: [ip-masq-agent/source-addresses]\n"+never)
		p := r.newPod(t, "a")
		r.cache(t, p, `"capabilityArgs": {"io.kubernetes.cri.pod-annotations": {"ip-masq-agent/source-addresses": "192.0.2.50", "ip-masq-agent/masquerade": "false"}}`)
		r.Sync(t)
		r.wantSeen(t, p, "192.0.2.50")
		if s := r.status(t); len(s.Pods.Attached) != 1 || fmt.Sprint(s.Pods.Attached[0].RefusedAnnotations) != "[ip-masq-agent/masquerade]" {
			t.Errorf("%+v", s.Pods)
		}
	})
}
