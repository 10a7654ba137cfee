package conflicts

import (
	"bytes"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
)

// maxElements bounds how many elements of a set of nf_tables are read. A larger one is not understood.
const maxElements = 4096

// nativeSet is a set or map of nf_tables.
type nativeSet struct {
	keySize  int
	elements []element
}

// element is one key, or all keys between two, and in a verdict map what happens to its packets.
type element struct {
	from, to []byte
	rest     bool // all keys that no other element has
	outcome
}

// outcome is what a map has for a key: what happens to the packet, or a value.
type outcome struct {
	action action
	chain  string
	value  string // its bytes
}

// byOutcome divides the elements of a map by what it has for them, the rest last.
func (s nativeSet) byOutcome() (parts []nativeSet) {
	at := map[outcome]int{}
	for _, e := range s.elements {
		i, there := at[e.outcome]
		if !there || e.rest {
			i = len(parts)
			parts = append(parts, nativeSet{keySize: s.keySize})
			if !e.rest {
				at[e.outcome] = i
			}
		}
		parts[i].elements = append(parts[i].elements, e)
	}
	return parts
}

// readSet reads a set with its elements; false where it is too large, changes while it is read, or is not there.
func (n *nativeReader) readSet(name string) (nativeSet, bool) {
	attrs, found, err := n.conn.SetAttributes(n.table, name)
	if err != nil || !found {
		return nativeSet{}, false
	}
	set := nativeSet{keySize: int(attrs.Uint32(unix.NFTA_SET_KEY_LEN))}
	flags := attrs.Uint32(unix.NFTA_SET_FLAGS)
	conn, err := nfnl.DialFamily(n.tableFamily) // of its own: it may be left with the rest of an answer
	if err != nil {
		return set, false
	}
	defer func() { _ = conn.Close() }()
	raw, all, err := conn.RawElements(n.table, name, n.elementLimit())
	if err != nil || !all {
		return set, false
	}
	set.elements = decodeElements(raw, flags&unix.NFT_SET_INTERVAL != 0)
	return set, true
}

// givesAddresses reports whether a map has an address for every key, and not too many of them to follow each.
func (s nativeSet) givesAddresses(size int) bool {
	return len(s.elements) > 0 && len(s.byOutcome()) <= maxOutcomes &&
		!slices.ContainsFunc(s.elements, func(e element) bool { return len(e.value) != size })
}

// maxOutcomes bounds how many addresses of one map are followed. An egress group of ip-masq has a pool of at most 16; what pods
// chose of them are of the node's own.
const maxOutcomes = 1024

// endpoint is an element as the kernel tells it. Of intervals it tells both ends, the second being the first key beyond.
type endpoint struct {
	element
	end bool
}

func decodeElements(raw []nfnl.Attributes, intervals bool) []element {
	var rest []element
	var points []endpoint
	for _, attrs := range raw {
		p := endpoint{element: element{from: data(attrs, unix.NFTA_SET_ELEM_KEY), to: data(attrs, nftaSetElemKeyEnd)}}
		if verdict := attrs.Find(unix.NFTA_SET_ELEM_DATA).Find(unix.NFTA_DATA_VERDICT); verdict != nil {
			p.action, p.chain = verdictOf(verdict)
		}
		p.value = string(data(attrs, unix.NFTA_SET_ELEM_DATA))
		flags := attrs.Uint32(unix.NFTA_SET_ELEM_FLAGS)
		p.end = flags&unix.NFT_SET_ELEM_INTERVAL_END != 0
		if flags&nftSetElemCatchall != 0 {
			p.rest = true
			rest = append(rest, p.element)
			continue
		}
		points = append(points, p)
	}
	slices.SortStableFunc(points, func(a, b endpoint) int {
		switch c := bytes.Compare(a.from, b.from); {
		case c != 0 || a.end == b.end:
			return c
		case a.end:
			return -1
		}
		return 1
	})
	var all []element
	for i, p := range points {
		switch {
		case p.end:
			continue
		case p.to != nil: // both ends are told in one
		case !intervals:
			p.to = p.from
		case i+1 < len(points) && points[i+1].end:
			p.to = before(points[i+1].from)
		default:
			p.to = bytes.Repeat([]byte{0xff}, len(p.from))
		}
		all = append(all, p.element)
	}
	return append(all, rest...)
}

// What golang.org/x/sys/unix lacks of linux/netfilter/nf_tables.h.
const (
	nftaSetElemKeyEnd  = 10
	nftSetElemCatchall = 2
)

// before is the key ahead of another.
func before(key []byte) []byte {
	key = slices.Clone(key)
	for i := len(key) - 1; i >= 0; i-- {
		key[i]--
		if key[i] != 0xff {
			break
		}
	}
	return key
}

// match is the condition that the fields are those of the element.
func (e element) match(fields []field) match {
	if e.rest {
		return nil
	}
	var m match
	offset := 0
	for _, f := range fields {
		end := min(offset+f.size, len(e.from), len(e.to)) // a field alone has no padding
		if end <= offset {
			return match{{}}
		}
		m = append(m, f.between(e.from[offset:end], e.to[offset:end]))
		offset += (f.size + 3) / 4 * 4
	}
	return m
}

// contains is the condition that the fields are in the set. Addresses are put together, since there may be thousands.
func (s nativeSet) contains(fields []field) condition {
	if slices.ContainsFunc(fields, func(f field) bool { return f.kind == absentField }) {
		return constant(false)
	}
	addresses := map[subject][]addrRange{}
	c := condition{about: oneOf}
	for _, e := range s.elements {
		m := e.match(fields)
		if len(m) == 1 && (m[0].about == source || m[0].about == destination) && m[0].under == nil {
			addresses[m[0].about] = append(addresses[m[0].about], m[0].addresses...)
			continue
		}
		c.any = append(c.any, m)
	}
	for about, list := range addresses {
		c.any = append(c.any, match{{about: about, addresses: rangesOf(list...)}})
	}
	if len(c.any) == 1 && len(c.any[0]) == 1 {
		return c.any[0][0]
	}
	return c
}
