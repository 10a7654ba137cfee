package policy

import (
	"fmt"
	"net/netip"
	"strings"
)

// chainCharacters are what every backend takes without quoting.
const chainCharacters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"

// reservedNames are built-in chains and targets: a chain by such a name would be another program's, or be taken for a verdict.
const reservedNames = " PREROUTING INPUT FORWARD OUTPUT POSTROUTING ACCEPT DROP RETURN QUEUE MASQUERADE SNAT DNAT NETMAP REDIRECT "

// ValidateChain reports why a name cannot be the shared chain's.
func ValidateChain(name string) error {
	if len(name) > MaxChain {
		return fmt.Errorf("chain name %q has %d characters: want at most %d, because %q is appended", name, len(name), MaxChain, "-PODS")
	}
	if strings.Contains(reservedNames, " "+strings.ToUpper(name)+" ") {
		return fmt.Errorf("chain name %q is the kernel's own: choose another", name)
	}
	if name == "" || name[0] == '-' || name[0] == '.' || strings.Trim(name, chainCharacters) != "" {
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
	if err := s.PodAnnotations.Validate(); err != nil {
		return err
	}
	return ValidateChain(s.Chain)
}

// Validate reports a policy that no agent would write: prefixes that are missing, not masked or not of a family.
func (p Policy) Validate() error {
	if len(p.Egress) > MaxEgress {
		return fmt.Errorf("egress has %d items: want at most %d", len(p.Egress), MaxEgress)
	}
	lists := [][]netip.Prefix{p.NonMasquerade, p.Masquerade}
	for _, e := range p.Egress {
		lists = append(lists, e.Destinations, e.SourceAddresses)
		if e.WhenMissing != "" && e.WhenMissing != MissingMasquerade && e.WhenMissing != MissingDrop {
			return fmt.Errorf("whenMissing %q: want %q or %q", e.WhenMissing, MissingMasquerade, MissingDrop)
		}
	}
	for _, pattern := range p.OutputInterfaces {
		if err := ValidateInterface(pattern); err != nil {
			return err
		}
	}
	for _, list := range lists {
		for _, prefix := range list {
			if !prefix.IsValid() || prefix != prefix.Masked() || prefix.Addr().Is4In6() {
				return fmt.Errorf("prefix %q is not an aligned IPv4 or IPv6 prefix", prefix)
			}
		}
	}
	return p.Settings.Validate()
}
