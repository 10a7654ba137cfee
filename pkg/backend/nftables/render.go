package nftables

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// Render prints the state in nft's syntax. It is what Apply leaves in the kernel, not what it sends: Apply sends the
// difference. `nft list table inet ip-masq-agent` shows the same, with counts and other line breaks, and on kernels where a
// change fills a second set, every other time keep4.b and keep6.b in place of keep4 and keep6, and verdicts4.b and verdicts6.b.
func Render(state ruleset.State) string {
	state.KeepChain = false
	t := aim(state, &reading{}, InPlace, countLimit)
	var b strings.Builder
	fmt.Fprintf(&b, "table inet %s {\n", tableName)
	for _, s := range t.sets {
		renderSet(&b, s)
	}
	for i, c := range t.chains {
		if i > 0 {
			b.WriteString("\n")
		}
		renderChain(&b, c)
	}
	b.WriteString("}\n")
	return b.String()
}

func renderSet(b *strings.Builder, s set) {
	if s.Map {
		fmt.Fprintf(b, "\tmap %s {\n\t\ttype %s : %s\n", s.Name, s.Key, s.Value)
	} else {
		fmt.Fprintf(b, "\tset %s {\n\t\ttype %s\n", s.Name, s.Key)
	}
	if s.Interval {
		b.WriteString("\t\tflags interval\n")
	}
	if s.Counted {
		b.WriteString("\t\tcounter\n")
	}
	fmt.Fprintf(b, "\t\tcomment %q\n", s.Comment)
	for i, m := range s.members {
		if i == 0 {
			b.WriteString("\t\telements = {\n")
		}
		fmt.Fprintf(b, "\t\t\t%s%s\n", m.text(s.Counted), separator(i, len(s.members)))
	}
	b.WriteString("\t}\n\n")
}

// separator ends one of n elements, and the list behind the last.
func separator(i, n int) string {
	if i < n-1 {
		return ","
	}
	return "\n\t\t}"
}

func renderChain(b *strings.Builder, c chain) {
	fmt.Fprintf(b, "\tchain %s {\n", c.Name)
	if c.Type != "" {
		fmt.Fprintf(b, "\t\ttype %s hook postrouting priority srcnat; policy accept;\n", c.Type)
	}
	for _, r := range c.rules {
		fmt.Fprintf(b, "\t\t%s comment %q\n", r.Text, r.Comment)
	}
	b.WriteString("\t}\n")
}

// text prints a member as nft does: an address, a prefix where the range is one, or both ends. It is no String, which fmt would find, and the
// plugin carry.
func (m member) text(counted bool) string {
	text := m.first.String()
	switch prefix, ok := m.prefix(); {
	case m.first == m.last:
	case ok:
		text = prefix.String()
	default:
		text += "-" + m.last.String()
	}
	if counted {
		text += " counter"
	}
	if m.comment != "" {
		text += fmt.Sprintf(" comment %q", m.comment)
	}
	if m.value != "" {
		text += " : " + m.value
	}
	return text
}

// prefix returns the prefix that is exactly the range.
func (m member) prefix() (netip.Prefix, bool) {
	for bits := range m.first.BitLen() + 1 {
		p := netip.PrefixFrom(m.first, bits)
		if p.Masked() == p && last(p) == m.last {
			return p, true
		}
	}
	return netip.Prefix{}, false
}
