package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// The annotations of pods that change what the policy does to them.
const (
	MasqueradeAnnotation      = "ip-masq-agent/masquerade"
	SourceAddressesAnnotation = "ip-masq-agent/source-addresses"
)

// Annotations lists them all.
func Annotations() []string { return []string{MasqueradeAnnotation, SourceAddressesAnnotation} }

// PodAnnotations says which annotations of pods count: "allow", "deny", or their names with commas in between. The empty value
// means AllowAnnotations.
type PodAnnotations string

// The two words that stand for lists. What a pod chooses its source address by is never allowed but by its name, because a
// pod's author could take an address that is another's.
const (
	AllowAnnotations PodAnnotations = "allow"
	DenyAnnotations  PodAnnotations = "deny"
)

// AllowedAnnotations makes a value of a list.
func AllowedAnnotations(names []string) PodAnnotations {
	if len(names) == 0 {
		return DenyAnnotations
	}
	return PodAnnotations(strings.Join(slices.Compact(slices.Sorted(slices.Values(names))), ","))
}

// Allows reports whether an annotation counts.
func (a PodAnnotations) Allows(name string) bool {
	switch a {
	case "", AllowAnnotations:
		return name == MasqueradeAnnotation
	case DenyAnnotations:
		return false
	}
	return slices.Contains(strings.Split(string(a), ","), name)
}

// Validate reports a value that no agent would write.
func (a PodAnnotations) Validate() error {
	if a == "" || a == AllowAnnotations || a == DenyAnnotations {
		return nil
	}
	for name := range strings.SplitSeq(string(a), ",") {
		if !slices.Contains(Annotations(), name) {
			return fmt.Errorf("podAnnotations: %q is no annotation that ip-masq knows: want %s or %s", name, MasqueradeAnnotation, SourceAddressesAnnotation)
		}
	}
	return nil
}

// ParseSourceAddresses reads the value of SourceAddressesAnnotation: prefixes with commas in between, of either family, whether it
// is on or not; a pod's author cannot know. An address alone means itself.
func ParseSourceAddresses(text string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for item := range strings.SplitSeq(text, ",") {
		item = strings.TrimSpace(item)
		if item == "" {
			return nil, fmt.Errorf(`%q has an empty item: write prefixes or addresses of nodes with commas in between, such as "192.0.2.0/28,2001:db8::7"`, text)
		}
		prefix, err := parseSourceAddress(item)
		if err != nil {
			return nil, err
		}
		prefixes = append(prefixes, prefix)
	}
	return prefixes, nil
}

func parseSourceAddress(item string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(item)
	if address, alone := netip.ParseAddr(item); alone == nil && address.Zone() == "" {
		prefix, err = netip.PrefixFrom(address, address.BitLen()), nil
	}
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf(`%q is no prefix and no address: write one such as "192.0.2.0/28"`, item)
	case prefix.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%q is an IPv4-mapped IPv6 address: write the IPv4 one", item)
	case prefix != prefix.Masked():
		return netip.Prefix{}, fmt.Errorf("%q is not aligned: write %q", item, prefix.Masked())
	}
	return prefix, nil
}
