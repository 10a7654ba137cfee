package policy

import (
	"fmt"
	"slices"
	"strings"
)

// The annotations of pods that change what the policy does to them.
const (
	MasqueradeAnnotation      = "ip-masq-agent/masquerade"
	SourceAddressesAnnotation = "ip-masq-agent/source-addresses"
)

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
		if name != MasqueradeAnnotation && name != SourceAddressesAnnotation {
			return fmt.Errorf("podAnnotations: %q is no annotation that ip-masq knows: want %s or %s", name, MasqueradeAnnotation, SourceAddressesAnnotation)
		}
	}
	return nil
}
