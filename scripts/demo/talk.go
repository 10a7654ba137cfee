package main

import (
	"net/netip"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// verdict is what a host outside can tell from the address that it sees.
type verdict string

const (
	masquerade verdict = "the node's address"
	keep       verdict = "the pod's own"
	wrong      verdict = "neither the node's nor the pod's"
)

// policy is the expected verdict for each of the two hosts.
type policy struct{ internet, corp verdict }

// attempt is one pod speaking to one host.
type attempt struct {
	pod     *netnstest.Pod
	name    string
	network string // udp or tcp
	host    string
	to      netip.Addr
	node    string // the node's address on that side
	want    verdict
}

// attempts are all pods to both hosts over both protocols.
func (d *demo) attempts(p policy) (all []attempt) {
	for i, pod := range d.pods {
		for _, network := range []string{"udp", "tcp"} {
			a := attempt{pod: pod, name: podNames[i], network: network}
			a.host, a.to, a.node, a.want = "internet", d.node.Internet.IPv4, "192.0.2.1", p.internet
			all = append(all, a)
			a.host, a.to, a.node, a.want = "corp", d.node.Corp.IPv4, "10.99.0.1", p.corp
			all = append(all, a)
		}
	}
	return all
}

// speak returns the address that the host saw.
func (a attempt) speak() (netip.Addr, verdict, error) {
	from, err := a.pod.Seen(a.network, a.to)
	switch {
	case err != nil:
		return netip.Addr{}, wrong, err
	case from.Addr().String() == a.node:
		return from.Addr(), masquerade, nil
	case slices.Contains(a.pod.Addrs, from.Addr()):
		return from.Addr(), keep, nil
	}
	return from.Addr(), wrong, nil
}

// inForce tells whether all get the expected verdict.
func (d *demo) inForce(p policy) bool {
	return !slices.ContainsFunc(d.attempts(p), func(a attempt) bool {
		_, got, err := a.speak()
		return err != nil || got != a.want
	})
}

// talk prints who saw what, and ends the demo when that is not what the policy
// says.
func (d *demo) talk(p policy) {
	d.headline("Each pod talks to both hosts; each host tells whom it saw")
	say("%-4s %-5s  %-21s  %-12s", "pod", "", "to", "host saw")
	failures := 0
	for _, a := range d.attempts(p) {
		from, got, err := a.speak()
		if err != nil {
			d.Fatalf("pod %s, %s to %s: %v", a.name, a.network, a.to, err)
		}
		remark := string(got)
		if got != a.want {
			failures++
			remark += ", WRONG: expected " + string(a.want)
		}
		say("%-4s %-5s  %-9s %-11s  %-12s %s", a.name, a.network, a.host, a.to, from, remark)
	}
	if failures > 0 {
		d.Fatalf("%d times a host saw the wrong address", failures)
	}
}
