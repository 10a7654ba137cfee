package nftables

import (
	"context"
	"net/netip"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// TestHeirGoesMeanwhile: whoever is to take an address over is detached between the reading of the records and the
// transaction. It sees the address in other hands and is done; the address must not stay in its name.
func TestHeirGoesMeanwhile(t *testing.T) {
	netnstest.Require(t, "nft")
	for _, stays := range []bool{false, true} {
		n := newNode(t)
		n.sync(goldenState(goldenStates["default"]().Settings))
		a, b, c := goldenPod("10.244.0.7"), goldenPod("10.244.0.7"), goldenPod("10.244.0.7")
		b.ContainerID, c.ContainerID = "b", "c"
		records := map[attachment.ID]attachment.Attachment{}
		var onRecord func(netip.Addr) []ruleset.Pod
		detach := func(a attachment.Attachment) error {
			delete(records, a.ID())
			return n.Detach(context.Background(), goldenStates["default"]().Settings, families, a.ID(), ruleset.Pods(a), onRecord)
		}
		asked := 0
		onRecord = func(netip.Addr) (pods []ruleset.Pod) {
			if asked++; asked > 1 {
				for _, a := range records {
					pods = append(pods, ruleset.Pods(a)...)
				}
				return pods
			}
			if err := detach(b); err != nil {
				t.Error(err)
			}
			return ruleset.Pods(b)
		}
		err := n.Do(func() error {
			all := []attachment.Attachment{b, c, a}
			if !stays {
				all = []attachment.Attachment{b, a}
			}
			for _, each := range all {
				records[each.ID()] = each
				if err := n.Attach(context.Background(), goldenState(goldenStates["default"]().Settings).Only(ruleset.Pods(each))); err != nil {
					return err
				}
			}
			return detach(a)
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := n.observe()
		if err != nil {
			t.Fatal(err)
		}
		if pods := got.Pods(); len(pods) != len(records) || stays && pods[0].Owner != c.ID() {
			t.Errorf("%v, want those of %v", pods, records)
		}
	}
}
