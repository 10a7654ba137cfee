package iptables

import (
	"context"
	"slices"
	"time"

	"github.com/google/nftables"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// kubeletHints are the chains that the kubelet creates in table mangle of the variant that it uses itself
// (KEP-3178, pkg/kubelet/kubelet_network_linux.go).
var kubeletHints = []string{"KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"}

// Standing reports whether one of the chains that the settings name is there in this variant. It writes nothing, and starts
// processes only where iptables-legacy has a nat table.
func (h Host) Standing(kind backend.Kind, s policy.Settings, family policy.Family) bool {
	return h.hasChain(kind, family, natTable, s.Chain, s.PodsChain())
}

// Hinted reports whether the kubelet says that this variant is the node's. The hint is an IPv4 chain on every node.
func (h Host) Hinted(kind backend.Kind) bool {
	return h.hasChain(kind, policy.IPv4, "mangle", kubeletHints...)
}

func (h Host) hasChain(kind backend.Kind, family policy.Family, table string, chains ...string) bool {
	if kind == backend.IPTablesNFT {
		return slices.ContainsFunc(chains, func(chain string) bool { return nftHasChain(family, table, chain) })
	}
	return LegacyTable(family, table) && slices.ContainsFunc(chains, func(chain string) bool { return h.legacyHasChain(family, table, chain) })
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

// legacyHasChain asks iptables-legacy, which costs a process.
func (h Host) legacyHasChain(family policy.Family, table, chain string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), evidenceTimeout)
	defer cancel()
	programs, err := h.find(backend.IPTablesLegacy, family)
	if err != nil {
		return false
	}
	_, err = h.run(ctx, programs.command, []string{"-w", waitSeconds(ctx), "-t", table, "-S", chain}, "")
	return err == nil
}

// evidenceTimeout bounds one look at a legacy table, which may wait for the xtables lock.
const evidenceTimeout = 3 * time.Second
