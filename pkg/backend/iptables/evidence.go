package iptables

import (
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
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

func hasChain(kind backend.Kind, family policy.Family, table string, chains ...string) bool {
	return slices.ContainsFunc(chains, func(chain string) bool {
		if kind == backend.IPTablesNFT {
			return nftHasChain(family, table, chain)
		}
		return LegacyTable(family, table) && legacyHasChain(family, table, chain)
	})
}

func nftHasChain(family policy.Family, table, chain string) bool {
	conn, err := nfnl.DialFamily(nfFamily(family))
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	_, found, err := conn.Chain(table, chain)
	return err == nil && found
}
