package node

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
)

// TestGCLeavesOtherNetworksAlone: network names that differ in little, or whose ids begin alike, are different networks.
func TestGCLeavesOtherNetworksAlone(t *testing.T) {
	eachVariant(t, func(t *testing.T, variant string) {
		k := newKernel(t, variant, Options{})
		addresses := map[string]string{"net1": "10.244.0.1", "net2": "10.244.0.2", "net": "10.244.0.3", "net10": "10.244.0.4"}
		for network, address := range addresses {
			k.attachTo(t, network, address)
		}
		k.mustSync(t)
		k.gc(t, "net1")
		rules := k.rules(t, variant)
		for network, address := range addresses {
			_, err := k.records.Get(attachment.Owner{Network: network, ContainerID: "c", IfName: "eth0"}.ID())
			if gone := errors.Is(err, os.ErrNotExist); gone != (network == "net1") || strings.Contains(rules, "-s "+address+"/32") == gone {
				t.Errorf("%s: record %v, rules\n%s", network, err, rules)
			}
		}
	})
}

// TestGCFindsLostRecords: a rule of the network whose record is lost goes too.
func TestGCFindsLostRecords(t *testing.T) {
	eachVariant(t, func(t *testing.T, variant string) {
		k := newKernel(t, variant, Options{})
		lost := k.attachTo(t, "net1", "10.244.0.1")
		k.mustSync(t)
		if err := k.records.Delete(lost.ID()); err != nil {
			t.Fatal(err)
		}
		k.gc(t, "net1")
		if rules := k.rules(t, variant); strings.Contains(rules, "10.244.0.1/32") {
			t.Errorf("rules\n%s", rules)
		}
	})
}

// gc says that no attachment of the network is valid any more.
func (k *kernel) gc(t *testing.T, network string) {
	t.Helper()
	err := k.Do(func() error { return k.GC(t.Context(), network, nil, true) })
	if err != nil {
		t.Fatal(err)
	}
}
