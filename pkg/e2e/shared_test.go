package e2e

import (
	"sync"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
)

// sharing is another attachment of the pod's addresses, such as a second network with an overlapping range, or the next pod
// that gets the address of one whose DEL is late.
func (p *pod) sharing(network, container string) *pod {
	return &pod{p.Pod, attachment.Owner{Network: network, ContainerID: container, IfName: "eth0"}}
}

func (r *rig) del(t *testing.T, p *pod) {
	t.Helper()
	if got := r.plugin(t, "DEL", p); got.Code != 0 {
		t.Errorf("DEL: %s%s", got.Stdout, got.Stderr)
	}
}

// TestSharedAddress has no agent: an address is masqueraded until the last attachment on record that has it is deleted.
func TestSharedAddress(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		first := r.attached(t, "first")
		second, third := first.sharing("other", "second"), first.sharing(network, "third")
		for _, order := range [][]*pod{{first, second, third}, {third, first, second}, {second, third, first}} {
			for _, p := range order {
				r.add(t, p)
			}
			for _, p := range order {
				r.wantSeen(t, first, nodeAddress)
				r.del(t, p)
			}
			r.wantSeen(t, first, first.Addrs[0].String())
		}
	})
}

// TestSharedAddressAfterAFlush: the rules are flushed, another pod's ADD makes them again out of the records, and then the DEL
// of the dead owner comes.
func TestSharedAddressAfterAFlush(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		for _, names := range [][2]string{{"dead", "living"}, {"living", "dead"}} {
			living := r.newPod(t, names[0])
			dead := living.sharing(network, names[1]+"-former")
			r.add(t, dead)
			r.add(t, living)
			r.sh(t, "nft flush ruleset; iptables -w -t nat -F; iptables -w -t nat -X")
			next := r.attached(t, "next"+names[0])
			r.del(t, dead)
			r.wantSeen(t, living, nodeAddress)
			r.del(t, living)
			r.wantSeen(t, living, living.Addrs[0].String())
			r.wantSeen(t, next, nodeAddress)
		}
	})
}

// TestSharedAddressDeletedAtOnce: both DELs run side by side, under the shared lock.
func TestSharedAddressDeletedAtOnce(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		p := r.newPod(t, "pod")
		for range 10 {
			owners := []*pod{p.sharing("a", "a"), p.sharing("b", "b"), p.sharing("c", "c")}
			for _, o := range owners {
				r.add(t, o)
			}
			var wg sync.WaitGroup
			for _, o := range owners[:2] {
				wg.Go(func() { r.del(t, o) })
			}
			wg.Wait()
			r.wantSeen(t, p, nodeAddress)
			r.del(t, owners[2])
			r.wantSeen(t, p, p.Addrs[0].String())
			if r.hasRule(t, owners[0]) || r.hasRule(t, owners[1]) || r.hasRule(t, owners[2]) {
				t.Fatal("a rule is left")
			}
		}
	})
}
