package policy

import (
	"fmt"
	"net/netip"
	"regexp"
)

// chainName allows what every backend can hold without quoting.
var chainName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)

// ValidateChain reports why a name cannot be the shared chain's.
func ValidateChain(name string) error {
	if len(name) > MaxChain {
		return fmt.Errorf("chain name %q has %d characters: want at most %d, because %q is appended", name, len(name), MaxChain, "-PODS")
	}
	if !chainName.MatchString(name) {
		return fmt.Errorf("chain name %q: want letters, digits, dashes, dots and underscores, and no dash in front", name)
	}
	return nil
}

// ParseSources reads "pods" or "all".
func ParseSources(text string) (Sources, error) {
	if s := Sources(text); s == SourcesPods || s == SourcesAll {
		return s, nil
	}
	return "", fmt.Errorf("sources %q: want %q or %q", text, SourcesPods, SourcesAll)
}

// Validate reports settings that no agent would write.
func (s Settings) Validate() error {
	if _, err := ParseSources(string(s.Sources)); err != nil {
		return err
	}
	return ValidateChain(s.Chain)
}

// Validate reports a policy that no agent would write: prefixes that are missing, not masked or not of a family.
func (p Policy) Validate() error {
	for _, list := range [][]netip.Prefix{p.NonMasquerade, p.Masquerade} {
		for _, prefix := range list {
			if !prefix.IsValid() || prefix != prefix.Masked() || prefix.Addr().Is4In6() {
				return fmt.Errorf("prefix %q is not an aligned IPv4 or IPv6 prefix", prefix)
			}
		}
	}
	return p.Settings.Validate()
}
