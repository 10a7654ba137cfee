package nfnl

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// Excl makes an addition fail with EEXIST where the object is there already; without it that is no error, and no change.
const Excl = unix.NLM_F_EXCL

const create = unix.NLM_F_CREATE

// Chain is a chain of an inet table. One with a Type is a base chain.
type Chain struct {
	Table, Name string
	Type        string // "nat"
	Hook        uint32
	Priority    int32
	Accept      bool // the policy of a base chain, else drop
}

// KeyType is the type of a set's keys and of a map's values, in nft's numbering (nftables/include/datatype.h).
type KeyType uint32

// The types of the sets here. Verdict is one of values alone (NFT_DATA_VERDICT).
const (
	IPv4Addr KeyType = 7
	IPv6Addr KeyType = 8
	Verdict  KeyType = 0xffffff00
)

// String returns the name that nft has for the type.
func (k KeyType) String() string {
	switch k {
	case IPv4Addr:
		return "ipv4_addr"
	case Verdict:
		return "verdict"
	}
	return "ipv6_addr"
}

// size returns the number of bytes of an address.
func (k KeyType) size() uint32 {
	if k == IPv4Addr {
		return 4
	}
	return 16
}

// Set is a set of addresses, or of intervals of them.
type Set struct {
	Table, Name string
	Key         KeyType
	Interval    bool
	Anonymous   bool    // belongs to a rule, and goes with it
	Map         bool    // holds values, or objects, beside its keys
	Value       KeyType // of a map's values
	Counted     bool    // each element counts what matches it (Linux 5.7; before, the kernel leaves it out)
	Comment     string
}

// Element is an address of a set. In a set of intervals it begins one, or with End it is the first address behind one; an
// interval without an end reaches to the last address that there is.
type Element struct {
	Key     netip.Addr
	End     bool
	Value   string // of a map, as nft prints it: an address, or "goto CHAIN"
	Comment string
	Counts  Counts // that it begins with; what it has is read by Counts alone
}

// Counts are those of a counter.
type Counts struct{ Packets, Bytes uint64 }

// Rule is a rule with its expressions as the kernel encodes them.
type Rule struct {
	Table, Chain string
	Handle       uint64
	Exprs        [][]byte
	Comment      string
	Text         string // for errors
}

// AddTable creates a table. The flags are of the table, such as unix.NFT_TABLE_F_DORMANT.
func (b *Batch) AddTable(name string, tableFlags uint32, flags uint16) {
	b.add("create table "+name, unix.NFT_MSG_NEWTABLE, create|flags, func(d []byte) []byte {
		d = appendString(d, unix.NFTA_TABLE_NAME, name)
		return appendUint32(d, unix.NFTA_TABLE_FLAGS, tableFlags)
	})
}

// DeleteTable deletes a table with all that is in it.
func (b *Batch) DeleteTable(name string) {
	b.add("delete table "+name, unix.NFT_MSG_DELTABLE, 0, func(d []byte) []byte {
		return appendString(d, unix.NFTA_TABLE_NAME, name)
	})
}

// AddChain creates a chain.
func (b *Batch) AddChain(c Chain) {
	b.add("create chain "+c.Name, unix.NFT_MSG_NEWCHAIN, create|Excl, func(d []byte) []byte {
		d = appendString(d, unix.NFTA_CHAIN_TABLE, c.Table)
		d = appendString(d, unix.NFTA_CHAIN_NAME, c.Name)
		if c.Type != "" {
			d = appendBase(d, c)
		}
		return d
	})
}

func appendBase(d []byte, c Chain) []byte {
	d, hook := open(d, unix.NFTA_CHAIN_HOOK)
	d = appendUint32(d, unix.NFTA_HOOK_HOOKNUM, c.Hook)
	d = appendUint32(d, unix.NFTA_HOOK_PRIORITY, uint32(c.Priority))
	closeAttr(d, hook)
	d = appendUint32(d, unix.NFTA_CHAIN_POLICY, policyOf(c.Accept))
	return appendString(d, unix.NFTA_CHAIN_TYPE, c.Type)
}

// policyOf returns NF_ACCEPT or NF_DROP.
func policyOf(accept bool) uint32 {
	if accept {
		return 1
	}
	return 0
}

// DeleteChain deletes a chain, whose rules must be gone, and all that lead to it.
func (b *Batch) DeleteChain(table, name string) {
	b.add("delete chain "+name, unix.NFT_MSG_DELCHAIN, 0, func(d []byte) []byte {
		d = appendString(d, unix.NFTA_CHAIN_TABLE, table)
		return appendString(d, unix.NFTA_CHAIN_NAME, name)
	})
}

// AddSet creates a set.
func (b *Batch) AddSet(s Set) {
	id := uint32(len(b.steps)) // any number that no other set of the transaction has
	b.add("create set "+s.Name, unix.NFT_MSG_NEWSET, create|Excl, func(d []byte) []byte {
		d = appendString(d, unix.NFTA_SET_TABLE, s.Table)
		d = appendString(d, unix.NFTA_SET_NAME, s.Name)
		if flags := s.flags(); flags != 0 {
			d = appendUint32(d, unix.NFTA_SET_FLAGS, flags)
		}
		d = appendUint32(d, unix.NFTA_SET_KEY_TYPE, uint32(s.Key))
		d = appendUint32(d, unix.NFTA_SET_KEY_LEN, s.Key.size())
		if s.Map {
			d = appendUint32(d, unix.NFTA_SET_DATA_TYPE, uint32(s.Value))
			if s.Value != Verdict {
				d = appendUint32(d, unix.NFTA_SET_DATA_LEN, s.Value.size())
			}
		}
		d = appendUint32(d, unix.NFTA_SET_ID, id)
		if s.Counted {
			d = appendBytes(d, setExpr|unix.NLA_F_NESTED, Count())
		}
		return appendComment(d, unix.NFTA_SET_USERDATA, udataSetComment, s.Comment)
	})
}

// setExpr is NFTA_SET_EXPR, the expression that every element of a set has one of. The kernel makes one for an element that is added
// without.
const setExpr = 17

func (s Set) flags() (flags uint32) {
	if s.Interval {
		flags |= unix.NFT_SET_INTERVAL
	}
	if s.Map {
		flags |= unix.NFT_SET_MAP
	}
	return flags
}

// FlushSet deletes all elements of a set. Before Linux 6.4 and its stable siblings that is what a map needs ahead of DeleteSet for
// the chains that it leads to to be deleted in the same transaction (commit 628bd3e49cba).
func (b *Batch) FlushSet(table, name string) {
	b.add("flush set "+name, unix.NFT_MSG_DELSETELEM, 0, func(d []byte) []byte {
		return append(d, elementList(table, name)...)
	})
}

// DeleteSet deletes a set and its elements. No rule may use it.
func (b *Batch) DeleteSet(table, name string) {
	b.add("delete set "+name, unix.NFT_MSG_DELSET, 0, func(d []byte) []byte {
		d = appendString(d, unix.NFTA_SET_TABLE, table)
		return appendString(d, unix.NFTA_SET_NAME, name)
	})
}

// AddRule puts a rule before the one with the given handle, or last where that is 0.
func (b *Batch) AddRule(r Rule, before uint64) {
	flags := uint16(create)
	if before == 0 {
		flags |= unix.NLM_F_APPEND
	}
	b.add("add rule to "+r.Chain+": "+r.Text, unix.NFT_MSG_NEWRULE, flags, func(d []byte) []byte {
		d = appendString(d, unix.NFTA_RULE_TABLE, r.Table)
		d = appendString(d, unix.NFTA_RULE_CHAIN, r.Chain)
		if before != 0 {
			d = appendUint64(d, unix.NFTA_RULE_POSITION, before)
		}
		d, list := open(d, unix.NFTA_RULE_EXPRESSIONS)
		for _, expr := range r.Exprs {
			d = appendBytes(d, unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, expr)
		}
		closeAttr(d, list)
		return appendComment(d, unix.NFTA_RULE_USERDATA, udataComment, r.Comment)
	})
}

// DeleteRule deletes the rule with the handle of r.
func (b *Batch) DeleteRule(r Rule) {
	b.add("delete rule from "+r.Chain, unix.NFT_MSG_DELRULE, 0, func(d []byte) []byte {
		d = appendString(d, unix.NFTA_RULE_TABLE, r.Table)
		d = appendString(d, unix.NFTA_RULE_CHAIN, r.Chain)
		return appendUint64(d, unix.NFTA_RULE_HANDLE, r.Handle)
	})
}

// The types of libnftnl's user data (libnftnl/udata.h) that nft shows as comments.
const (
	udataComment    = 0 // of rules and elements
	udataSetComment = 7
)

// MaxComment is the longest comment that nft writes; more than 254 bytes would not fit the encoding.
const MaxComment = 128

// appendComment appends a comment as nft encodes it: type, length, text, zero.
func appendComment(d []byte, attr uint16, typ byte, comment string) []byte {
	if comment == "" {
		return d
	}
	comment = comment[:min(len(comment), MaxComment)]
	var udata [MaxComment + 3]byte
	udata[0], udata[1] = typ, byte(len(comment)+1)
	copy(udata[2:], comment)
	return appendBytes(d, attr, udata[:len(comment)+3])
}

// commentIn finds a comment in user data.
func commentIn(udata []byte, typ byte) string {
	for len(udata) >= 2 && len(udata) >= 2+int(udata[1]) {
		if udata[0] == typ {
			return text(udata[2 : 2+int(udata[1])])
		}
		udata = udata[2+int(udata[1]):]
	}
	return ""
}
