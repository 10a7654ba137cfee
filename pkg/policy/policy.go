// Package policy holds the nouns of masquerading: families, prefixes, verdicts, and the policy that maps one to the other.
//
// It is pure: it reads no file, runs no command and knows no backend. It refuses to guess: a Policy carries the effective
// lists, the defaults already in place, so that whoever holds one can print, compare and apply it without further context.
package policy

import (
	"net/netip"
	"slices"
)

// DefaultChain is the shared chain's name unless --masq-chain or masqChain says otherwise.
const DefaultChain = "IP-MASQ-AGENT"

// MaxChain is the longest name for the shared chain: iptables allows 28 characters, and "-PODS" is appended.
const MaxChain = 23

// Sources says whose traffic the policy governs.
type Sources string

// The two kinds of sources: the addresses of attached pods, or everything not bound for a local destination.
const (
	SourcesPods Sources = "pods"
	SourcesAll  Sources = "all"
)

// Settings are the parts of a policy that flags decide. The plugin needs no more than these for a pod whose node is set up.
type Settings struct {
	Chain       string     `json:"chain"`
	Sources     Sources    `json:"sources"`
	IPv6        bool       `json:"ipv6"`
	RandomFully bool       `json:"randomFully"`
	ToPorts     PortRanges `json:"toPorts,omitempty"`
	// AutoPorts says that the agent chose ToPorts, clear of the ports that the node uses otherwise.
	AutoPorts bool `json:"autoPorts,omitempty"`
	// NodePorts are the ports of Services, where a flag says which; the zero value means the default.
	NodePorts PortRange `json:"nodePorts,omitzero"`
	// NodeTraffic, with SourcesPods, lets the policy govern what is no pod's as well: the node's own traffic and, say, virtual
	// machines'. A pod that opted out keeps its address all the same.
	NodeTraffic    bool           `json:"nodeTraffic,omitempty"`
	PodAnnotations PodAnnotations `json:"podAnnotations,omitempty"`
}

// DefaultSettings are the agent's flags at their defaults.
func DefaultSettings() Settings {
	return Settings{Chain: DefaultChain, Sources: SourcesPods, RandomFully: true}
}

// PodsChain names the chain that holds one rule per pod address.
func (s Settings) PodsChain() string { return s.Chain + "-PODS" }

// Families lists the families that are on.
func (s Settings) Families() []Family {
	if s.IPv6 {
		return []Family{IPv4, IPv6}
	}
	return []Family{IPv4}
}

// Policy says which destinations see the pod's own address. The lists hold effective prefixes of both families, masked, in
// the user's order.
type Policy struct {
	Settings          Settings       `json:"settings"`
	NonMasquerade     []netip.Prefix `json:"nonMasqueradeCIDRs"`
	Masquerade        []netip.Prefix `json:"masqueradeCIDRs,omitempty"`
	MasqLinkLocal     bool           `json:"masqLinkLocal"`
	MasqLinkLocalIPv6 bool           `json:"masqLinkLocalIPv6"`
	OutputInterfaces  Interfaces     `json:"outputInterfaces,omitempty"`
	Egress            []Egress       `json:"egress,omitempty"`
	// Flags names the flags that decided settings although the configuration has keys for them; nil where that is not known, as
	// in a policy that an older agent wrote down. It changes no rule.
	Flags []string `json:"flags"`
}

// Default is the policy of a node without a configuration.
func Default(s Settings) Policy {
	return Policy{Settings: s, NonMasquerade: DefaultNonMasquerade(s.Families()...)}
}

// DefaultNonMasquerade lists the destinations that keep the pod's address by default, for each of the given families.
func DefaultNonMasquerade(families ...Family) []netip.Prefix {
	var prefixes []netip.Prefix
	for _, f := range families {
		prefixes = append(prefixes, f.defaultNonMasquerade()...)
	}
	return prefixes
}

// ReservedRanges lists what --nomasq-all-reserved-ranges adds to the defaults.
func ReservedRanges() []netip.Prefix { return IPv4.reserved() }

// Equal reports whether both policies put the same rules in the kernel in the same order.
func (p Policy) Equal(q Policy) bool {
	return p.Settings.Equal(q.Settings) &&
		samePrefixes(p.NonMasquerade, q.NonMasquerade) && samePrefixes(p.Masquerade, q.Masquerade) &&
		p.MasqLinkLocal == q.MasqLinkLocal && p.MasqLinkLocalIPv6 == q.MasqLinkLocalIPv6 &&
		slices.Equal(p.OutputInterfaces, q.OutputInterfaces) && slices.EqualFunc(p.Egress, q.Egress, Egress.Equal)
}

// samePrefixes is slices.Equal, which takes a tenth of a millisecond for ten thousand prefixes. At every resync the agent compares
// the policy that it has with itself.
func samePrefixes(a, b []netip.Prefix) bool {
	itself := len(a) > 0 && len(a) == len(b) && &a[0] == &b[0]
	return itself || slices.Equal(a, b)
}

// Equal reports whether both settings are the same.
func (s Settings) Equal(t Settings) bool {
	return s.Chain == t.Chain && s.Sources == t.Sources && s.IPv6 == t.IPv6 &&
		s.RandomFully == t.RandomFully && slices.Equal(s.ToPorts, t.ToPorts) && s.AutoPorts == t.AutoPorts && s.NodePorts == t.NodePorts &&
		s.NodeTraffic == t.NodeTraffic && s.PodAnnotations == t.PodAnnotations
}

// masqLinkLocal reports whether link-local destinations of the family are masqueraded.
func (p Policy) masqLinkLocal(f Family) bool {
	if f == IPv4 {
		return p.MasqLinkLocal
	}
	return p.MasqLinkLocalIPv6
}
