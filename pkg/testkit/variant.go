package testkit

import (
	"slices"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// Variant is one kind of kernel rules that the product is tested with. A further backend is one more line in Variants.
type Variant struct {
	Name   string // of the subtests: nft, legacy, nftables
	Kind   backend.Kind
	Choice string // the value of --backend, and of the plugin's key "backend", that leads to it
	Events bool   // the kernel reports changes of its rules
	Tools  []string
}

// Variants are all kinds.
func Variants() []Variant {
	return []Variant{
		{"nft", backend.IPTablesNFT, "iptables", true, []string{"iptables-nft", "ip6tables-nft", "nft"}},
		{"legacy", backend.IPTablesLegacy, "iptables", false, []string{"iptables-legacy", "ip6tables-legacy", "nft"}},
		{"nftables", backend.NFTables, "nftables", true, []string{"nft", "iptables-nft", "iptables-legacy"}},
	}
}

// IPTablesVariants are those that are iptables: only there are listings, references and lock files.
func IPTablesVariants() []Variant {
	return slices.DeleteFunc(Variants(), func(v Variant) bool { return !v.IsIPTables() })
}

// Only are those of one kind.
func Only(kind backend.Kind) []Variant {
	return slices.DeleteFunc(Variants(), func(v Variant) bool { return v.Kind != kind })
}

// IsIPTables reports whether the iptables programs show its rules.
func (v Variant) IsIPTables() bool { return v.Kind != backend.NFTables }

// Path is a PATH for a node of this variant: its iptables under the plain names; for nftables one without any iptables.
func (v Variant) Path(t netnstest.TB) string {
	t.Helper()
	if v.IsIPTables() {
		return netnstest.IPTables(t, v.Name)
	}
	return netnstest.NoIPTables(t)
}

// Each runs a test once per variant, one after the other; a test that calls t.Parallel runs beside the rest.
func Each(t *testing.T, variants []Variant, test func(t *testing.T, v Variant)) {
	t.Helper()
	for _, v := range variants {
		t.Run(v.Name, func(t *testing.T) {
			netnstest.Require(t, v.Tools...)
			test(t, v)
		})
	}
}
