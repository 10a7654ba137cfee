package nfnl

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrInterrupted is a dump during which the ruleset changed: it may have missed something, or reported it twice.
var ErrInterrupted = errors.New("the ruleset changed while it was read")

// Generation returns the number of the ruleset's generation. Every transaction in the network namespace changes it, whoever
// makes it.
func (c *Conn) Generation() (uint32, error) {
	generation := uint32(0)
	_, err := c.get("read generation", unix.NFT_MSG_GETGEN, nil, func(attrs []byte) {
		generation = findUint32(attrs, unix.NFTA_GEN_ID)
	})
	return generation, err
}

// Exists asks the kernel, once on each socket, whether it has nf_tables at all.
func (c *Conn) Exists() error {
	if c.asked {
		return nil
	}
	_, err := c.Generation()
	c.asked = err == nil
	return err
}

// Settled returns a generation all of whose changes can be seen. nf_tables_commit raises the number an instant before it shows
// what the number stands for, so what is read right after Generation may still be the ruleset of the generation before. A
// transaction waits until the one before it is over (commit_mutex), an empty one too, and it changes nothing; the kernel
// handles it while it is sent.
func (c *Conn) Settled() (uint32, error) {
	before, err := c.Generation()
	for err == nil {
		if err = c.sendEmpty(); err != nil {
			break
		}
		var after uint32
		if after, err = c.Generation(); err == nil && after == before {
			return after, nil
		}
		before = after
	}
	return 0, err
}

// sendEmpty sends a transaction without a change. There is no answer to it.
func (c *Conn) sendEmpty() error {
	b := NewBatch()
	b.frame("end", unix.NFNL_MSG_BATCH_END, nil)
	renumber(b.datagram, c.sequence)
	c.sequence += uint32(len(b.steps))
	if err := c.send(b.datagram); err != nil {
		return fmt.Errorf("wait for the last transaction: %w", err)
	}
	return nil
}

// Table looks for an inet table and returns its flags.
func (c *Conn) Table(name string) (flags uint32, found bool, err error) {
	request := appendString(nil, unix.NFTA_TABLE_NAME, name)
	found, err = c.get("look up table "+name, unix.NFT_MSG_GETTABLE, request, func(attrs []byte) {
		flags = findUint32(attrs, unix.NFTA_TABLE_FLAGS)
	})
	return flags, found, err
}

// Tables lists the names of all tables.
func (c *Conn) Tables() ([]string, error) {
	var names []string
	err := c.dump("list tables", unix.NFT_MSG_GETTABLE, nil, func(attrs []byte) {
		names = append(names, findString(attrs, unix.NFTA_TABLE_NAME))
	})
	return names, err
}

// Chains lists the chains of a table without their rules. The kernel tells those of all inet tables.
func (c *Conn) Chains(table string) ([]Chain, error) {
	var all []Chain
	err := c.dump("list chains", unix.NFT_MSG_GETCHAIN, nil, func(attrs []byte) {
		if findString(attrs, unix.NFTA_CHAIN_TABLE) == table {
			all = append(all, decodeChain(attrs))
		}
	})
	return all, missingIsEmpty(err)
}

// Chain reads one chain without its rules.
func (c *Conn) Chain(table, name string) (chain Chain, found bool, err error) {
	request := appendString(appendString(nil, unix.NFTA_CHAIN_TABLE, table), unix.NFTA_CHAIN_NAME, name)
	found, err = c.get("look up chain "+name, unix.NFT_MSG_GETCHAIN, request, func(attrs []byte) { chain = decodeChain(attrs) })
	return chain, found, err
}

func decodeChain(attrs []byte) Chain {
	hook := find(attrs, unix.NFTA_CHAIN_HOOK)
	return Chain{
		Table: findString(attrs, unix.NFTA_CHAIN_TABLE), Name: findString(attrs, unix.NFTA_CHAIN_NAME),
		Type:     findString(attrs, unix.NFTA_CHAIN_TYPE),
		Hook:     findUint32(hook, unix.NFTA_HOOK_HOOKNUM),
		Priority: int32(findUint32(hook, unix.NFTA_HOOK_PRIORITY)),
		Accept:   findUint32(attrs, unix.NFTA_CHAIN_POLICY) == policyOf(true),
	}
}

// Sets lists the sets of a table without their elements; of a table that is not there, none.
func (c *Conn) Sets(table string) ([]Set, error) {
	var all []Set
	err := c.dump("list sets", unix.NFT_MSG_GETSET, appendString(nil, unix.NFTA_SET_TABLE, table), func(attrs []byte) {
		if findString(attrs, unix.NFTA_SET_TABLE) != table {
			return
		}
		all = append(all, decodeSet(attrs))
	})
	return all, missingIsEmpty(err)
}

func decodeSet(attrs []byte) Set {
	flags := findUint32(attrs, unix.NFTA_SET_FLAGS)
	return Set{
		Table: findString(attrs, unix.NFTA_SET_TABLE), Name: findString(attrs, unix.NFTA_SET_NAME),
		Key:       KeyType(findUint32(attrs, unix.NFTA_SET_KEY_TYPE)),
		Interval:  flags&unix.NFT_SET_INTERVAL != 0,
		Anonymous: flags&unix.NFT_SET_ANONYMOUS != 0,
		Map:       flags&(unix.NFT_SET_MAP|unix.NFT_SET_OBJECT) != 0,
		Value:     KeyType(findUint32(attrs, unix.NFTA_SET_DATA_TYPE)),
		Counted:   ExprName(find(attrs, setExpr)) == "counter",
		Comment:   commentIn(find(attrs, unix.NFTA_SET_USERDATA), udataSetComment),
	}
}

// Rules lists the rules of a table, chain by chain in their order; of a table that is not there, none.
func (c *Conn) Rules(table string) ([]Rule, error) {
	var all []Rule
	err := c.dump("list rules", unix.NFT_MSG_GETRULE, appendString(nil, unix.NFTA_RULE_TABLE, table), func(attrs []byte) {
		if findString(attrs, unix.NFTA_RULE_TABLE) == table {
			all = append(all, decodeRule(attrs))
		}
	})
	return all, missingIsEmpty(err)
}

// HasRules reports whether a chain is there and not empty. It takes in the beginning of the listing alone, however long the
// chain, so the socket is of no use afterwards but to be closed.
func (c *Conn) HasRules(table, chain string) (bool, error) {
	c.unread = true
	request := appendString(appendString(nil, unix.NFTA_RULE_TABLE, table), unix.NFTA_RULE_CHAIN, chain)
	if _, err := c.request(unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP, request); err != nil {
		return false, fmt.Errorf("look into chain %s: %w", chain, err)
	}
	datagram, err := c.receive()
	if err != nil {
		return false, fmt.Errorf("look into chain %s: %w", chain, err)
	}
	m, _, ok := next(datagram)
	return ok && m.typ != unix.NLMSG_ERROR && m.typ != unix.NLMSG_DONE, nil
}

// RawRules reads the rules of one chain as the kernel tells them, in order; of a chain that is not there, none. What programs
// put into their rules in forms of their own, such as the comments of iptables-nft, can be searched for in them.
func (c *Conn) RawRules(table, chain string) ([][]byte, error) {
	return c.RawRulesWhere(table, chain, func([]byte) bool { return true })
}

// RawRulesWhere is RawRules for the wanted rules alone.
func (c *Conn) RawRulesWhere(table, chain string, wanted func(raw []byte) bool) (rules [][]byte, err error) {
	request := appendString(appendString(nil, unix.NFTA_RULE_TABLE, table), unix.NFTA_RULE_CHAIN, chain)
	err = c.dump("list rules of "+chain, unix.NFT_MSG_GETRULE, request, func(attrs []byte) {
		if wanted(attrs) {
			rules = append(rules, bytes.Clone(attrs))
		}
	})
	return rules, missingIsEmpty(err)
}

func missingIsEmpty(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

func decodeRule(attrs []byte) Rule {
	r := Rule{
		Table:   findString(attrs, unix.NFTA_RULE_TABLE),
		Chain:   findString(attrs, unix.NFTA_RULE_CHAIN),
		Handle:  findUint64(attrs, unix.NFTA_RULE_HANDLE),
		Comment: commentIn(find(attrs, unix.NFTA_RULE_USERDATA), udataComment),
	}
	for _, expr := range attributes(find(attrs, unix.NFTA_RULE_EXPRESSIONS)) {
		r.Exprs = append(r.Exprs, append([]byte(nil), expr...)) // the buffer is used again
	}
	return r
}

// request sends a single message and returns its sequence number.
func (c *Conn) request(typ, flags uint16, attrs []byte) (uint32, error) {
	sequence := c.sequence
	c.sequence++
	d := appendHeader(nil, typ|unix.NFNL_SUBSYS_NFTABLES<<8, flags|unix.NLM_F_REQUEST, sequence, c.family, 0)
	d = append(d, attrs...)
	binary.NativeEndian.PutUint32(d, uint32(len(d)))
	return sequence, c.send(d)
}

// get asks for one object; found is false where the kernel says that it is not there.
func (c *Conn) get(step string, typ uint16, attrs []byte, visit func(attrs []byte)) (found bool, err error) {
	err = c.ask(step, typ, unix.NLM_F_ACK, attrs, visit)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}

// dump asks for all objects of a kind.
func (c *Conn) dump(step string, typ uint16, attrs []byte, visit func(attrs []byte)) error {
	return c.ask(step, typ, unix.NLM_F_DUMP, attrs, visit)
}

// ask sends a request and visits the answers until the acknowledgement or the end of the dump. The attributes are valid
// during the visit only.
func (c *Conn) ask(step string, typ, flags uint16, attrs []byte, visit func(attrs []byte)) error {
	return c.askWhile(step, typ, flags, attrs, func(attrs []byte) bool { visit(attrs); return true })
}

// askWhile is ask until the visitor has enough, which ends it with errEnough.
func (c *Conn) askWhile(step string, typ, flags uint16, attrs []byte, visit func(attrs []byte) bool) error {
	sequence, err := c.request(typ, flags, attrs)
	if err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	interrupted := false
	for {
		datagram, err := c.receive()
		if err != nil {
			return fmt.Errorf("%s: %w", step, err)
		}
		for m, rest, ok := next(datagram); ok; m, rest, ok = next(rest) {
			if m.sequence != sequence {
				continue // what an earlier request left
			}
			interrupted = interrupted || m.flags&unix.NLM_F_DUMP_INTR != 0 && flags&unix.NLM_F_DUMP != 0
			switch {
			case m.typ != unix.NLMSG_ERROR && m.typ != unix.NLMSG_DONE:
				if !visit(m.attributes()) {
					c.unread = true
					return errEnough
				}
			case m.errno() != 0:
				return &Refused{Step: step, Errno: m.errno()}
			case interrupted:
				return fmt.Errorf("%s: %w", step, ErrInterrupted)
			default:
				return nil
			}
		}
	}
}
