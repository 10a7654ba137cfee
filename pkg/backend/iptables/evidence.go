package iptables

import (
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// kubeletHints are the chains that the kubelet creates in table mangle of the variant that it uses itself
// (KEP-3178, pkg/kubelet/kubelet_network_linux.go).
var kubeletHints = []string{"KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"}

// Standing reports whether one of the chains that the settings name is there in this variant. It writes nothing and
// starts no process.
func (h Host) Standing(kind backend.Kind, s policy.Settings, family policy.Family) bool {
	return hasChain(kind, family, natTable, s.Chain, s.PodsChain())
}

// Hinted reports whether the kubelet says that this variant is the node's. The hint is an IPv4 chain on every node.
func (h Host) Hinted(kind backend.Kind) bool {
	return hasChain(kind, policy.IPv4, "mangle", kubeletHints...)
}

// Leftover reports whether a probe that was killed left its chain in this variant.
func (h Host) Leftover(kind backend.Kind, family policy.Family) bool {
	return hasChain(kind, family, natTable, probeChain)
}

func hasChain(kind backend.Kind, family policy.Family, table string, chains ...string) bool {
	return slices.ContainsFunc(chains, func(chain string) bool {
		if kind == backend.IPTablesNFT {
			there, err := nftHasChain(family, table, chain)
			return err == nil && there
		}
		return legacyHasChain(family, table, chain)
	})
}
