package policy

import (
	"fmt"
	"net/netip"
)

// Family is an address family. Every other package has one code path for both
// families and takes this as its parameter.
type Family uint8

// The two address families, numbered as in the IP header.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// FamilyOf returns the family of addr. An IPv4-mapped IPv6 address counts as IPv6: unmap it first.
func FamilyOf(addr netip.Addr) Family {
	if addr.Is4() {
		return IPv4
	}
	return IPv6
}

// String returns "IPv4" or "IPv6".
func (f Family) String() string { return fmt.Sprintf("IPv%d", uint8(f)) }

// MarshalText writes the family as "IPv4" or "IPv6".
func (f Family) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads "IPv4" or "IPv6".
func (f *Family) UnmarshalText(text []byte) error {
	switch string(text) {
	case "IPv4":
		*f = IPv4
	case "IPv6":
		*f = IPv6
	default:
		return fmt.Errorf("address family %q: want IPv4 or IPv6", text)
	}
	return nil
}

// Bits returns the length of an address of the family: 32 or 128.
func (f Family) Bits() int {
	if f == IPv4 {
		return 32
	}
	return 128
}

// LinkLocal returns the family's link-local range (RFC 3927, RFC 4291).
func (f Family) LinkLocal() netip.Prefix {
	if f == IPv4 {
		return netip.MustParsePrefix("169.254.0.0/16")
	}
	return netip.MustParsePrefix("fe80::/10")
}

// Multicast returns the family's multicast range, which is never masqueraded.
func (f Family) Multicast() netip.Prefix {
	if f == IPv4 {
		return netip.MustParsePrefix("224.0.0.0/4")
	}
	return netip.MustParsePrefix("ff00::/8")
}

// defaultNonMasquerade are the destinations that keep the pod's address when the configuration names none of the family.
func (f Family) defaultNonMasquerade() []netip.Prefix {
	if f == IPv4 {
		return []netip.Prefix{
			netip.MustParsePrefix("10.0.0.0/8"),
			netip.MustParsePrefix("172.16.0.0/12"),
			netip.MustParsePrefix("192.168.0.0/16"),
		}
	}
	return []netip.Prefix{netip.MustParsePrefix("fc00::/7")}
}

// reserved are the further ranges of --nomasq-all-reserved-ranges, in the order of the Kubernetes agent.
func (f Family) reserved() []netip.Prefix {
	if f == IPv6 {
		return nil
	}
	texts := []string{
		"100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24",
		"198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
	}
	prefixes := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		prefixes[i] = netip.MustParsePrefix(text)
	}
	return prefixes
}
