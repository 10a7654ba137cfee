package soak

import (
	"fmt"
	"syscall"
)

// changeConfig draws another list.
func (r *run) changeConfig(map[string]bool) func() {
	var keep []string
	for _, i := range r.rng.Perm(len(prefixes)) {
		if r.rng.IntN(2) == 0 {
			keep = append(keep, prefixes[i])
		}
	}
	// A list without a prefix of a family would leave that family's default in force.
	keep = append(keep, "198.51.100.0/24", "2001:dc0::/32")
	r.model.keep, r.model.bad = keep, false
	text := r.model.config()
	return func() {
		r.note("config: %q", text)
		r.write(r.config, text)
	}
}

// badConfigs are what people write by mistake.
var badConfigs = []string{"nonMasqueradeCIDR: []\n", "{*", "nonMasqueradeCIDRs: [10.0.0.1/8]\n", "nonMasqueradeCIDRs:\n", "resyncInterval: 0s\n"}

// breakConfig leaves the last good policy in force, which is the one that is in the kernel since the last rest.
func (r *run) breakConfig(map[string]bool) func() {
	if r.model.bad {
		return nil
	}
	r.model.bad = true
	text := badConfigs[r.rng.IntN(len(badConfigs))]
	return func() {
		r.note("bad config: %q", text)
		r.write(r.config, text)
	}
}

// switchIPv6 restarts the agent with the other flag. Under a bad config the policy would be the persisted one with the default
// for IPv6, which the model does not know.
func (r *run) switchIPv6(map[string]bool) func() {
	return r.reflag(func() { r.model.ipv6 = !r.model.ipv6 }, "IPv6 switched")
}

func (r *run) switchBackend(map[string]bool) func() {
	if !canSwitch() {
		return nil
	}
	return r.reflag(func() {
		r.model.backend = map[string]string{"iptables": "nftables", "nftables": "iptables"}[r.model.backend]
	}, "backend switched")
}

// reflag is a rollout of the DaemonSet: the old agent ends, the next one has other flags, and the file may speak of a family
// only when that is on.
func (r *run) reflag(change func(), what string) func() {
	if r.model.bad {
		return nil
	}
	sig := []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}[r.rng.IntN(2)]
	return func() {
		r.stopAgent(sig)
		r.mu.Lock()
		change()
		text := r.model.config()
		state := fmt.Sprintf("%s, IPv6 %v", r.model.backend, r.model.ipv6)
		r.mu.Unlock()
		r.write(r.config, text)
		r.note("%s: %s", what, state)
		r.startAgent()
	}
}
