package nfnl

import (
	"bytes"
	"errors"
	"iter"

	"golang.org/x/sys/unix"
)

// Attributes is what the kernel tells of an object of any kind, for reading what other programs made: expressions and
// elements that the rest of this package never writes. It is valid whatever happens to the socket.
type Attributes []byte

// All walks over the attributes, in order.
func (a Attributes) All() iter.Seq2[uint16, Attributes] {
	return func(yield func(uint16, Attributes) bool) {
		for typ, value := range attributes(a) {
			if !yield(typ&typeMask, value) {
				return
			}
		}
	}
}

// Find returns the first attribute of a type, nil where there is none.
func (a Attributes) Find(typ uint16) Attributes { return find(a, typ) }

// Text returns a string, empty where there is none.
func (a Attributes) Text(typ uint16) string { return findString(a, typ) }

// Uint32 returns a number in network order, as everywhere in nf_tables, 0 where there is none.
func (a Attributes) Uint32(typ uint16) uint32 { return findUint32(a, typ) }

// ExprData returns what an expression is about.
func ExprData(expr []byte) Attributes { return find(expr, unix.NFTA_EXPR_DATA) }

// BaseChains lists the family's chains that packets meet at a hook, without their rules. The kernel sends the other chains as
// well, at about 0.3 µs each: it knows no filter.
func (c *Conn) BaseChains() ([]Chain, error) {
	var all []Chain
	err := c.dump("list chains", unix.NFT_MSG_GETCHAIN, nil, func(attrs []byte) {
		hook := find(attrs, unix.NFTA_CHAIN_HOOK)
		if hook == nil {
			return
		}
		all = append(all, Chain{
			Table: findString(attrs, unix.NFTA_CHAIN_TABLE), Name: findString(attrs, unix.NFTA_CHAIN_NAME),
			Type:     findString(attrs, unix.NFTA_CHAIN_TYPE),
			Hook:     findUint32(hook, unix.NFTA_HOOK_HOOKNUM),
			Priority: int32(findUint32(hook, unix.NFTA_HOOK_PRIORITY)),
			Accept:   findUint32(attrs, unix.NFTA_CHAIN_POLICY) == policyOf(true),
		})
	})
	return all, err
}

// ChainRules lists the rules of one chain, in order; of a chain that is not there, none.
func (c *Conn) ChainRules(table, chain string) ([]Rule, error) {
	raw, err := c.RawRules(table, chain)
	rules := make([]Rule, len(raw))
	for i, attrs := range raw {
		rules[i] = decodeRule(attrs)
	}
	return rules, err
}

// SetAttributes reads one set of any kind without its elements.
func (c *Conn) SetAttributes(table, set string) (attrs Attributes, found bool, err error) {
	request := appendString(appendString(nil, unix.NFTA_SET_TABLE, table), unix.NFTA_SET_NAME, set)
	found, err = c.get("look up set "+set, unix.NFT_MSG_GETSET, request, func(got []byte) { attrs = bytes.Clone(got) })
	return attrs, found, err
}

// errEnough ends a dump early.
var errEnough = errors.New("enough")

// RawElements reads the elements of a set of any kind, at most limit of them and then all is false. Of a dump that ends early
// the rest still comes, so the socket is then of no use but to be closed.
func (c *Conn) RawElements(table, set string, limit int) (elements []Attributes, all bool, err error) {
	err = c.askWhile("list set "+set, unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP, elementList(table, set), func(attrs []byte) bool {
		for _, element := range attributes(find(attrs, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			elements = append(elements, bytes.Clone(element))
		}
		return len(elements) <= limit
	})
	if errors.Is(err, errEnough) {
		return elements[:limit], false, nil
	}
	return elements, err == nil, err
}
