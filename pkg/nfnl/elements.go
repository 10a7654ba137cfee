package nfnl

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// listLimit is where a list of elements is continued in another message: the length of an attribute has 16 bits, and one
// element with its comment needs less than the rest.
const listLimit = 1<<16 - 512

// elementSize is the usual size of an encoded interval's end, IPv4.
const elementSize = 24

// AddElements adds elements to a set. The end of an interval must follow its beginning: newer kernels insist on it.
func (b *Batch) AddElements(table, set string, elements []Element, flags uint16) {
	b.elements("add to set "+set, unix.NFT_MSG_NEWSETELEM, create|flags, table, set, elements)
}

// DeleteElements deletes elements from a set and fails with ENOENT where one of them is missing.
func (b *Batch) DeleteElements(table, set string, elements []Element) {
	b.elements("delete from set "+set, unix.NFT_MSG_DELSETELEM, 0, table, set, elements)
}

// elements appends as many messages as the list needs.
func (b *Batch) elements(step string, typ, flags uint16, table, set string, elements []Element) {
	b.datagram = slices.Grow(b.datagram, len(elements)*elementSize)
	for len(elements) > 0 {
		b.add(step, typ, flags, func(d []byte) []byte {
			d = append(d, elementList(table, set)...)
			d, list := open(d, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
			for len(elements) > 0 && len(d)-list < listLimit {
				d = appendElement(d, elements[0])
				elements = elements[1:]
			}
			closeAttr(d, list)
			return d
		})
	}
}

func appendElement(d []byte, e Element) []byte {
	d, start := open(d, unix.NFTA_LIST_ELEM)
	d, key := open(d, unix.NFTA_SET_ELEM_KEY)
	d = appendAddress(d, e.Key)
	closeAttr(d, key)
	if e.Value != "" {
		d = appendValue(d, e.Value)
	}
	if e.End {
		d = appendUint32(d, unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	}
	d = appendComment(d, unix.NFTA_SET_ELEM_USERDATA, udataComment, e.Comment)
	if e.Counts != (Counts{}) {
		d = appendBytes(d, unix.NFTA_SET_ELEM_EXPR|unix.NLA_F_NESTED, CountOn(e.Counts.Packets, e.Counts.Bytes))
	}
	closeAttr(d, start)
	return d
}

func appendAddress(d []byte, a netip.Addr) []byte {
	if a.Is4() {
		value := a.As4()
		return appendBytes(d, unix.NFTA_DATA_VALUE, value[:])
	}
	value := a.As16()
	return appendBytes(d, unix.NFTA_DATA_VALUE, value[:])
}

const goTo = "goto "

// appendValue appends what a map has for a key. What is neither an address nor a chain to go to is left out, which the kernel refuses.
func appendValue(d []byte, value string) []byte {
	d, data := open(d, unix.NFTA_SET_ELEM_DATA)
	if chain, ok := strings.CutPrefix(value, goTo); ok {
		d = appendVerdict(d, unix.NFT_GOTO, chain)
	} else if address, err := netip.ParseAddr(value); err == nil {
		d = appendAddress(d, address)
	}
	closeAttr(d, data)
	return d
}

// Elements reads a whole set. An interval's end may come before its beginning.
func (c *Conn) Elements(table, set string) ([]Element, error) {
	var all []Element
	var d decoder
	err := c.dump("list set "+set, unix.NFT_MSG_GETSETELEM, elementList(table, set), func(attrs []byte) {
		all = d.elements(all, attrs)
	})
	return all, err
}

// Counts is Elements with what they have counted.
func (c *Conn) Counts(table, set string) ([]Element, error) {
	var all []Element
	var d decoder
	err := c.dump("list set "+set, unix.NFT_MSG_GETSETELEM, elementList(table, set), func(attrs []byte) {
		for _, attr := range attributes(find(attrs, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			e := d.element(attr)
			if expr := find(attr, unix.NFTA_SET_ELEM_EXPR); ExprName(expr) == "counter" {
				e.Counts = countsIn(expr)
			}
			if e.Key.IsValid() {
				all = append(all, e)
			}
		}
	})
	return all, err
}

// Element reads one element of a set of addresses; found is false where it, the set or the table is not there.
func (c *Conn) Element(table, set string, key netip.Addr) (e Element, found bool, err error) {
	request := elementList(table, set)
	request, list := open(request, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	request = appendElement(request, Element{Key: key})
	closeAttr(request, list)
	var all []Element
	var d decoder
	step := fmt.Sprintf("look up %s in set %s", key, set)
	found, err = c.get(step, unix.NFT_MSG_GETSETELEM, request, func(attrs []byte) {
		all = d.elements(all, attrs)
	})
	if err != nil || !found || len(all) == 0 {
		return Element{}, false, err
	}
	return all[0], true, nil
}

func elementList(table, set string) []byte {
	return appendString(appendString(nil, unix.NFTA_SET_ELEM_LIST_TABLE, table), unix.NFTA_SET_ELEM_LIST_SET, set)
}

// decoder keeps one copy of each value: a map leads ten thousand ranges to a few chains.
type decoder struct{ values map[string]string }

func (d *decoder) elements(all []Element, attrs []byte) []Element {
	for _, attr := range attributes(find(attrs, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
		if e := d.element(attr); e.Key.IsValid() {
			all = append(all, e)
		}
	}
	return all
}

// element leaves the key invalid where it is no address.
func (d *decoder) element(attrs []byte) Element {
	var e Element
	for typ, value := range attributes(attrs) {
		switch typ & typeMask {
		case unix.NFTA_SET_ELEM_KEY:
			e.Key, _ = netip.AddrFromSlice(find(value, unix.NFTA_DATA_VALUE))
		case unix.NFTA_SET_ELEM_DATA:
			e.Value = d.value(value)
		case unix.NFTA_SET_ELEM_FLAGS:
			e.End = number(value)&unix.NFT_SET_ELEM_INTERVAL_END != 0
		case unix.NFTA_SET_ELEM_USERDATA:
			e.Comment = commentIn(value, udataComment)
		}
	}
	return e
}

func (d *decoder) value(data []byte) string {
	if known, ok := d.values[string(data)]; ok {
		return known
	}
	if d.values == nil {
		d.values = map[string]string{}
	}
	text := decodeValue(data)
	d.values[string(data)] = text
	return text
}

// decodeValue is the reverse of appendValue. Whatever else a map can hold is told apart from that, and no more.
func decodeValue(data []byte) string {
	if address, ok := netip.AddrFromSlice(find(data, unix.NFTA_DATA_VALUE)); ok {
		return address.String()
	}
	verdict := find(data, unix.NFTA_DATA_VERDICT)
	chain := findString(verdict, unix.NFTA_VERDICT_CHAIN)
	if code := int32(findUint32(verdict, unix.NFTA_VERDICT_CODE)); verdict == nil || code != unix.NFT_GOTO {
		return fmt.Sprintf("verdict %d %s", code, chain)
	}
	return goTo + chain
}
