package explain

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/backend/iptables"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/nftables"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// TestModelsAgree: for random policies, nodes, pods and packets, what policy.Decide says is what the rules of every backend do that
// are rendered for them. The rules are read by interpreters of their text that share no code with them.
func TestModelsAgree(t *testing.T) {
	const count = 10_000
	seen, w := map[string]int{}, paperWorld()
	w.eachCase(t, count, func(c modelCase) {
		want := c.policy.Decide(c.packet, c.addresses)
		seen[string(want.Cause)+" "+string(want.Verdict)]++
		for name, backend := range map[string]struct {
			text string
			got  func(*testing.T, string, *rand.Rand) effect
		}{
			"iptables": {iptables.Render(c.state()), c.iptables},
			"nftables": {nftables.Render(c.state()), c.nftables},
		} {
			if got := backend.got(t, backend.text, c.luck()); !c.allows(want, got) {
				t.Errorf("%s: policy.Decide says %s, the rules %+v\n%s", name, want, got, backend.text)
			}
		}
		if t.Failed() {
			t.Log(c)
		}
	})
	t.Log(seen)
	for _, what := range []string{
		"family keep", "source keep", "multicast keep", "local keep", "interface keep", "prefix keep", "prefix masquerade", "prefix translate",
		"default masquerade", "annotation translate", "whenMissing masquerade", "whenMissing drop",
	} {
		if seen[what] < 50 && number(t, "IPMASQ_MODEL_CASE", count) == count {
			t.Errorf("%q is rare: %v", what, seen)
		}
	}
}

// allows reports whether rules do what the policy says: one of the ranges of ports for protocols that have ports, none for others,
// and the kernel's way to choose one.
func (c modelCase) allows(want policy.Outcome, got effect) bool {
	s := c.policy.Settings
	if want.Verdict != got.verdict || want.Address != got.address {
		return false
	}
	if want.Verdict == policy.Keep || want.Verdict == policy.Drop {
		return got == effect{verdict: want.Verdict}
	}
	if c.protocol == "icmp" || len(s.ToPorts) == 0 {
		return got.ports == "" && got.random == s.RandomFully
	}
	return got.random == s.RandomFully && slices.ContainsFunc(s.ToPorts, func(r policy.PortRange) bool { return r.String() == got.ports })
}
