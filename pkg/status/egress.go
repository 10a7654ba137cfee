package status

import (
	"fmt"
	"net/netip"
	"strings"
)

// printEgress has the node's addresses of each egress group, and what happens where it has none.
func (s Status) printEgress(p page) {
	label := "egress"
	for _, e := range s.Egress {
		if len(e.Addresses) > 0 {
			p.row(label, "", "group %d: %s%s", e.Group, join(e.Addresses), s.from(e.File, e.Line))
			label = ""
		}
		if len(e.Missing) > 0 {
			p.row(label, yellow, "group %d: %s", e.Group, e.lacks())
			label = ""
		}
	}
}

// lacks says what the node does not have for the group, and what that means.
func (e Egress) lacks() string {
	return fmt.Sprintf("the node has no %s address in %s: connections are %s", strings.ReplaceAll(join(e.Missing), ", ", " and no "), shortly(e.SourceAddresses), e.WhenMissing.Become())
}

// egress is no question where the policy has no group.
func (j *judge) egress() {
	const id = "egress-addresses"
	var lacking []string
	for _, e := range j.Egress {
		if len(e.Missing) > 0 {
			lacking = append(lacking, fmt.Sprintf("group %d: %s", e.Group, e.lacks()))
		}
	}
	switch why := j.why(PartAddresses); {
	case why != "":
		j.bad(id, Warn, "see the error", "the node's addresses could not be read%s", why)
	case len(j.Policy.Egress) == 0:
	case len(lacking) > 0:
		j.bad(id, Warn, "give the node an address in sourceAddresses (ip addr add), or keep pods that need one on nodes that have it",
			"%s without source addresses, first: %s", count(len(lacking), "egress group"), lacking[0])
	default:
		j.ok(id, "the node has source addresses for %s", count(len(j.Egress), "egress group"))
	}
}

// shortly is a list of prefixes with no more than the first few.
func shortly(prefixes []netip.Prefix) string {
	text := join(prefixes[:min(len(prefixes), shown)])
	if more := len(prefixes) - shown; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

func join[T fmt.Stringer](items []T) string {
	texts := make([]string, len(items))
	for i, item := range items {
		texts[i] = item.String()
	}
	return strings.Join(texts, ", ")
}
