package conflicts

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// nativeReader reads rules of one table of nf_tables as packets of one family meet them.
type nativeReader struct {
	conn        *nfnl.Conn
	tableFamily uint8
	table       string
	family      policy.Family
	hook        hook
}

func (n *nativeReader) rules(chain string) ([]rule, error) {
	var err error
	if n.conn, err = nfnl.DialFamily(n.tableFamily); err != nil {
		return nil, err
	}
	defer func() { _ = n.conn.Close() }()
	listed, err := n.conn.ChainRules(n.table, chain)
	if err != nil {
		return nil, err
	}
	var rules []rule
	for _, r := range listed {
		where := fmt.Sprintf("nftables table %s %s chain %s handle %d", familyName(n.tableFamily), n.table, chain, r.Handle)
		for _, one := range n.rule(r) {
			one.where = where
			rules = append(rules, one)
		}
	}
	return rules, nil
}

// reading is a rule while its expressions are read one by one, with what the registers hold.
type reading struct {
	*nativeReader
	rule
	registers map[uint32]field
	looked    *nativeSet // a map that decides what happens, or gives the address
	mapped    []field    // what its keys are compared with
	words     []string
}

// rule reads a rule; one that looks into a map is as many rules as the map has outcomes.
func (n *nativeReader) rule(r nfnl.Rule) []rule {
	read := reading{nativeReader: n, registers: map[uint32]field{}}
	read.comment = r.Comment
	read.packets, read.bytes = nfnl.Counted(r)
	for _, e := range r.Exprs {
		read.expression(nfnl.ExprName(e), nfnl.ExprData(e))
	}
	if read.comment != "" {
		read.say("comment %q", read.comment)
	}
	read.text = strings.Join(read.words, " ")
	if read.looked == nil {
		return []rule{read.rule}
	}
	var all []rule
	for _, part := range read.looked.byOutcome() {
		one, out := read.rule, part.elements[0].outcome
		one.match = append(slices.Clip(one.match), part.contains(read.mapped))
		if out.value != "" {
			one.to = read.addressOf([]byte(out.value))
		} else {
			one.action, one.chain = out.action, out.chain
		}
		all = append(all, one)
	}
	return all
}

func (r *reading) say(format string, args ...any) {
	r.words = append(r.words, fmt.Sprintf(format, args...))
}

// add adds conditions. What they are is left out of the text where nobody would read it in one word.
func (r *reading) add(text string, conditions ...condition) {
	r.match = append(r.match, conditions...)
	switch text {
	case "":
		text = "..."
	case " ":
		return
	}
	if text != "..." || len(r.words) == 0 || r.words[len(r.words)-1] != "..." {
		r.say("%s", text)
	}
}

func (r *reading) expression(name string, e nfnl.Attributes) {
	switch name {
	case "counter", "log", "last", "notrack", "dup", "dynset", "objref", "flow_offload":
		r.untracks = r.untracks || name == "notrack"
		if name == "notrack" {
			r.say("notrack")
		}
	case "meta", "ct", "payload", "fib", "numgen", "hash", "rt", "socket", "exthdr", "osf", "tunnel", "xfrm":
		r.load(name, e)
	case "bitwise":
		r.store(e.Uint32(unix.NFTA_BITWISE_DREG), e.Uint32(unix.NFTA_BITWISE_LEN), r.at(e.Uint32(unix.NFTA_BITWISE_SREG)).bitwise(e))
	case "byteorder":
		r.store(e.Uint32(unix.NFTA_BYTEORDER_DREG), e.Uint32(unix.NFTA_BYTEORDER_LEN), r.at(e.Uint32(unix.NFTA_BYTEORDER_SREG)).turned())
	case "cmp":
		r.compare(e)
	case "range":
		not := e.Uint32(unix.NFTA_RANGE_OP) == unix.NFT_RANGE_NEQ
		r.between(r.at(e.Uint32(unix.NFTA_RANGE_SREG)), data(e, unix.NFTA_RANGE_FROM_DATA), data(e, unix.NFTA_RANGE_TO_DATA), not)
	case "lookup":
		r.lookup(e)
	case "limit":
		r.add("", condition{about: some})
	case "match":
		r.extension(e)
	case "immediate":
		r.immediate(e)
	case "masq":
		r.masquerades = true
		r.act(translate, "masquerade")
	case "nat":
		r.to = r.addressAt(e)
		if e.Uint32(unix.NFTA_NAT_TYPE) == unix.NFT_NAT_SNAT {
			r.act(translate, "snat")
		} else {
			r.act(redirect, "dnat")
		}
	case "redir":
		r.act(redirect, "redirect")
	case "reject", "queue":
		r.queues = name == "queue"
		r.act(drop, name)
	case "target":
		r.target(e)
	default:
		r.add("", condition{})
	}
}

// addressAt is the address to which a rule translates, where it is a single one.
func (r *reading) addressAt(e nfnl.Attributes) netip.Addr {
	low, high := e.Find(unix.NFTA_NAT_REG_ADDR_MIN), e.Find(unix.NFTA_NAT_REG_ADDR_MAX)
	if low == nil || high != nil && !bytes.Equal(low, high) {
		return netip.Addr{}
	}
	value := r.at(e.Uint32(unix.NFTA_NAT_REG_ADDR_MIN))
	if value.kind != constantField {
		return netip.Addr{}
	}
	return r.addressOf(value.value)
}

// addressOf is the address of the family that a value is, if it is one.
func (r *reading) addressOf(value []byte) netip.Addr {
	addr, _ := netip.AddrFromSlice(value)
	if addr.BitLen() != r.family.Bits() {
		return netip.Addr{}
	}
	return addr
}

// data returns a value within an expression.
func data(e nfnl.Attributes, typ uint16) []byte { return e.Find(typ).Find(unix.NFTA_DATA_VALUE) }

// act notes what the rule does. The first thing that ends it counts.
func (r *reading) act(a action, word string) {
	if r.action == pass {
		r.action = a
	}
	r.say("%s", word)
}

func (r *reading) immediate(e nfnl.Attributes) {
	value := e.Find(unix.NFTA_IMMEDIATE_DATA)
	if verdict := value.Find(unix.NFTA_DATA_VERDICT); verdict != nil {
		a, chain := verdictOf(verdict)
		r.chain = chain
		if a != pass {
			r.act(a, strings.TrimSpace(verdictNames[a]+" "+chain))
		}
		return
	}
	constant := value.Find(unix.NFTA_DATA_VALUE)
	r.store(e.Uint32(unix.NFTA_IMMEDIATE_DREG), uint32(len(constant)), field{kind: constantField, value: constant})
}

var verdictNames = map[action]string{accept: "accept", drop: "drop", returns: "return", jumpTo: "jump", goTo: "goto"}

func verdictOf(verdict nfnl.Attributes) (action, string) {
	chain := verdict.Text(unix.NFTA_VERDICT_CHAIN)
	switch int32(verdict.Uint32(unix.NFTA_VERDICT_CODE)) {
	case 1: // NF_ACCEPT
		return accept, ""
	case 0: // NF_DROP
		return drop, ""
	case unix.NFT_RETURN:
		return returns, ""
	case unix.NFT_JUMP:
		return jumpTo, chain
	case unix.NFT_GOTO:
		return goTo, chain
	}
	return pass, ""
}

// registers of 4 bytes: the kernel numbers those of 16 bytes from 1 to 4, and the same memory in parts of 4 from 8.
func slot(register uint32) uint32 {
	if register >= unix.NFT_REG32_00 {
		return register - unix.NFT_REG32_00
	}
	return (register - unix.NFT_REG_1) * 4
}

func (r *reading) at(register uint32) field { return r.registers[slot(register)] }

// store puts a field into a register; what it covers beyond its first 4 bytes is no field of its own.
func (r *reading) store(register, size uint32, f field) {
	if f.size == 0 {
		f.size = int(size)
	}
	for i := range uint32(f.size+3) / 4 {
		delete(r.registers, slot(register)+i)
	}
	r.registers[slot(register)] = f
}

func (r *reading) compare(e nfnl.Attributes) {
	f, value := r.at(e.Uint32(unix.NFTA_CMP_SREG)), data(e, unix.NFTA_CMP_DATA)
	lowest, highest := bytes.Repeat([]byte{0}, len(value)), bytes.Repeat([]byte{0xff}, len(value))
	switch e.Uint32(unix.NFTA_CMP_OP) {
	case unix.NFT_CMP_EQ:
		r.between(f, value, value, false)
	case unix.NFT_CMP_NEQ:
		r.between(f, value, value, true)
	case unix.NFT_CMP_LTE:
		r.between(f, lowest, value, false)
	case unix.NFT_CMP_GT:
		r.between(f, lowest, value, true)
	case unix.NFT_CMP_GTE:
		r.between(f, value, highest, false)
	case unix.NFT_CMP_LT:
		r.between(f, value, highest, true)
	}
}

func (r *reading) between(f field, from, to []byte, not bool) {
	if f.kind == absentField {
		r.add("", constant(false))
		return
	}
	c := f.between(from, to)
	c.not = c.not != not
	r.add(f.text(from, to, not), c)
}

// lookup asks whether fields are in a set, or what a map has for them.
func (r *reading) lookup(e nfnl.Attributes) {
	name := e.Text(unix.NFTA_LOOKUP_SET)
	set, known := r.readSet(name)
	fields, loaded := r.fields(slot(e.Uint32(unix.NFTA_LOOKUP_SREG)), set.keySize)
	verdict := e.Find(unix.NFTA_LOOKUP_DREG) != nil && e.Uint32(unix.NFTA_LOOKUP_DREG) == unix.NFT_REG_VERDICT
	not := e.Uint32(unix.NFTA_LOOKUP_FLAGS)&unix.NFT_LOOKUP_F_INV != 0
	switch {
	case (!known || !loaded) && verdict: // who knows where to
		r.add("vmap @"+name, condition{})
		r.action = drop
	case !known || !loaded:
		r.add("", condition{})
	case verdict:
		r.say("%s vmap @%s", names(fields), name)
		r.looked, r.mapped = &set, fields
	case e.Find(unix.NFTA_LOOKUP_DREG) != nil && r.looked == nil && set.givesAddresses(r.family.Bits()/8):
		r.say("%s map @%s", names(fields), name)
		r.store(e.Uint32(unix.NFTA_LOOKUP_DREG), 4, field{})
		r.looked, r.mapped = &set, fields
	default:
		c := set.contains(fields)
		c.not = c.not != not
		r.add(fmt.Sprintf("%s %s@%s", names(fields), unequal(not), name), c)
	}
}

// fields collects what lies in the registers that make up a key.
func (r *reading) fields(first uint32, size int) (fields []field, ok bool) {
	for used := 0; used < size; {
		f, ok := r.registers[first+uint32(used)/4]
		if !ok {
			return nil, false
		}
		fields = append(fields, f)
		used += (max(f.size, 1) + 3) / 4 * 4
	}
	return fields, len(fields) > 0
}

func unequal(not bool) string {
	if not {
		return "!= "
	}
	return ""
}
