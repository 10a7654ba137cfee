package iptables

import (
	"slices"

	"github.com/coreos/go-iptables/iptables"
	"github.com/google/nftables"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// kubeletHints are the chains that the kubelet creates in table mangle of the variant that it uses itself
// (KEP-3178, pkg/kubelet/kubelet_network_linux.go).
var kubeletHints = []string{"KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"}

// Standing reports whether one of the chains that the settings name is there in this variant. It writes nothing, and starts
// processes only where iptables-legacy has a nat table.
func Standing(kind backend.Kind, s policy.Settings, family policy.Family) bool {
	return hasChain(kind, family, natTable, s.Chain, s.PodsChain())
}

// Hinted reports whether the kubelet says that this variant is the node's. The hint is an IPv4 chain on every node.
func Hinted(kind backend.Kind) bool {
	return hasChain(kind, policy.IPv4, "mangle", kubeletHints...)
}

func hasChain(kind backend.Kind, family policy.Family, table string, chains ...string) bool {
	if kind == backend.IPTablesNFT {
		return slices.ContainsFunc(chains, func(chain string) bool { return nftHasChain(family, table, chain) })
	}
	return LegacyTable(family, table) && legacyHasChain(family, table, chains...)
}

// nftHasChain asks the kernel, which costs no process.
func nftHasChain(family policy.Family, table, chain string) bool {
	conn, err := nftables.New()
	if err != nil {
		return false
	}
	nfFamily := nftables.TableFamilyIPv4
	if family == policy.IPv6 {
		nfFamily = nftables.TableFamilyIPv6
	}
	found, err := conn.ListChain(&nftables.Table{Name: table, Family: nfFamily}, chain)
	return err == nil && found != nil
}

func legacyHasChain(family policy.Family, table string, chains ...string) bool {
	programs, err := find(backend.IPTablesLegacy, family)
	if err != nil {
		return false
	}
	protocol := iptables.ProtocolIPv4
	if family == policy.IPv6 {
		protocol = iptables.ProtocolIPv6
	}
	ipt, err := iptables.New(iptables.IPFamily(protocol), iptables.Path(programs.command), iptables.Timeout(defaultWait))
	if err != nil {
		return false
	}
	return slices.ContainsFunc(chains, func(chain string) bool {
		there, err := ipt.ChainExists(table, chain)
		return err == nil && there
	})
}
