package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// list is a list of prefixes as a file gives it: in the user's order, with the user's duplicates.
type list struct {
	given bool
	size  int // as written, bad items included
	items []item
}

// item is one prefix of a list and its place.
type item struct {
	prefix netip.Prefix
	at     place
}

func (l list) places() []*place {
	all := make([]*place, len(l.items))
	for i := range l.items {
		all[i] = &l.items[i].at
	}
	return all
}

// list reads a list of CIDRs. A bad item is reported and left out.
func (d decoder) list(e entry, value any) list {
	values, ok := value.([]any)
	if !ok {
		d.errorf(e.key, e.value.at, `%s is %s: write a list, such as ["10.0.0.0/8"]`, e.key, describe(value))
		return list{given: true}
	}
	l := list{given: true, size: len(values), items: make([]item, 0, len(values))}
	for i, value := range values {
		prefix, err := parseItem(value, d.opts.EnableIPv6)
		if err != nil {
			d.errorf(e.key, e.value.item(i).at, "%s[%d]%s", e.key, i, err)
			continue
		}
		l.items = append(l.items, item{prefix, d.place(e.key, e.value.item(i).at)})
	}
	return l
}

// parseItem reads one item. Its errors continue the item's name.
func parseItem(value any, ipv6 bool) (netip.Prefix, error) {
	text, isString := value.(string)
	switch {
	case value == nil || isString && strings.TrimSpace(text) == "":
		return netip.Prefix{}, errors.New(` is empty: write a CIDR such as "10.0.0.0/8", or remove the item`)
	case !isString:
		return netip.Prefix{}, fmt.Errorf(` is %s: write a CIDR such as "10.0.0.0/8"`, describe(value))
	}
	prefix, err := parseCIDR(text, ipv6)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf(": %w", err)
	}
	return prefix, nil
}

// parseCIDR accepts what the kernel's rules will hold unchanged, and nothing that would have to be guessed at.
func parseCIDR(text string, ipv6 bool) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return netip.Prefix{}, unparsable(text)
	case prefix.Addr().Is4In6():
		return netip.Prefix{}, mapped(text, prefix)
	case prefix != prefix.Masked():
		return netip.Prefix{}, fmt.Errorf("CIDR %q is not aligned: use %q", text, prefix.Masked())
	case prefix.Addr().Is6() && !ipv6:
		return netip.Prefix{}, fmt.Errorf("CIDR %q is IPv6, which is off: start the agent with --enable-ipv6, or remove the item", text)
	}
	return prefix, nil
}

// unparsable explains the usual reasons why a text is no CIDR.
func unparsable(text string) error {
	trimmed := strings.TrimSpace(text)
	if trimmed != text {
		return fmt.Errorf("CIDR %q has white space around it: use %q", text, trimmed)
	}
	if addr, err := netip.ParseAddr(text); err == nil && !strings.Contains(text, "/") { // a zone may have any name
		addr = addr.Unmap()
		return fmt.Errorf("CIDR %q has no prefix length: use %q for this one address", text, netip.PrefixFrom(addr, addr.BitLen()))
	}
	return fmt.Errorf(`CIDR %q could not be parsed: write an address and a prefix length, such as "10.0.0.0/8"`, text)
}

// mapped refuses ::ffff:a.b.c.d: such packets are IPv4 on the wire, and an IPv6 rule would never see one.
func mapped(text string, prefix netip.Prefix) error {
	const offset = 128 - 32
	if prefix.Bits() < offset {
		return fmt.Errorf(`CIDR %q is an IPv4-mapped IPv6 range: use an IPv4 CIDR such as "10.0.0.0/8"`, text)
	}
	plain := netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-offset).Masked()
	return fmt.Errorf("CIDR %q is an IPv4-mapped IPv6 range: use %q", text, plain)
}
