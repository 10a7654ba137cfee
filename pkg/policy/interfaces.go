package policy

import (
	"fmt"
	"strings"
)

// Interfaces are patterns for the interfaces through which packets leave: a name, a beginning of names with "*" behind it, and
// either with "!" ahead of it for those that are not meant. None means every interface.
type Interfaces []string

// maxInterface is the longest name of an interface (IFNAMSIZ less the byte that ends it).
const maxInterface = 15

// ValidateInterface reports why a text is no pattern.
func ValidateInterface(pattern string) error {
	name := strings.TrimPrefix(pattern, "!")
	stem, wild := strings.CutSuffix(name, "*")
	switch {
	case name == "":
		return fmt.Errorf("interface %q: want a name such as eth0, bond* or !wg0", pattern)
	case stem == "" && wild:
		return fmt.Errorf("interface %q means every interface: remove it, or write the beginning of a name ahead of the asterisk", pattern)
	case strings.ContainsAny(stem, "*!/+ \t\n\"\\:;"):
		return fmt.Errorf("interface %q: want a name without blanks, quotes, slashes, colons and plus signs; an asterisk only at the end", pattern)
	case len(stem) > maxInterface || wild && len(stem) == maxInterface:
		return fmt.Errorf("interface %q: want at most %d characters, which no name of an interface exceeds", pattern, maxInterface)
	}
	return nil
}

// Split returns the patterns that are meant, and those that are not, both without their "!".
func (i Interfaces) Split() (meant, excluded []string) {
	for _, pattern := range i {
		if name, not := strings.CutPrefix(pattern, "!"); not {
			excluded = append(excluded, name)
		} else {
			meant = append(meant, pattern)
		}
	}
	return meant, excluded
}

// Match reports whether what leaves through the interface is masqueraded: it fits one that is meant, where any is, and none that
// is excluded.
func (i Interfaces) Match(name string) bool {
	meant, excluded := i.Split()
	return (len(meant) == 0 || fits(meant, name)) && !fits(excluded, name)
}

func fits(patterns []string, name string) bool {
	for _, pattern := range patterns {
		if stem, wild := strings.CutSuffix(pattern, "*"); pattern == name || wild && strings.HasPrefix(name, stem) {
			return true
		}
	}
	return false
}
