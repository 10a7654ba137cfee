package nfnl

import (
	"bytes"

	"golang.org/x/sys/unix"
)

// SameExprs reports whether a rule as the kernel reports it has the expressions that were written. The kernel adds attributes
// that were left at their default, leaves out numbers that only the transaction needed, and counts.
func SameExprs(written, reported [][]byte) bool {
	if len(written) != len(reported) {
		return false
	}
	for i := range written {
		if !sameExpr(written[i], reported[i]) {
			return false
		}
	}
	return true
}

func sameExpr(written, reported []byte) bool {
	name := findString(written, unix.NFTA_EXPR_NAME)
	if name != findString(reported, unix.NFTA_EXPR_NAME) {
		return false
	}
	return name == "counter" || covers(find(written, unix.NFTA_EXPR_DATA), find(reported, unix.NFTA_EXPR_DATA)) &&
		defaults(find(written, unix.NFTA_EXPR_DATA), find(reported, unix.NFTA_EXPR_DATA))
}

// covers reports whether every written attribute was reported with the same value.
func covers(written, reported []byte) bool {
	for typ, value := range attributes(written) {
		other := find(reported, typ&typeMask)
		switch {
		case other == nil && zero(value):
		case typ&unix.NLA_F_NESTED != 0:
			if !covers(value, other) {
				return false
			}
		case !bytes.Equal(value, other):
			return false
		}
	}
	return true
}

// defaults reports whether what was reported beyond the written attributes is zero.
func defaults(written, reported []byte) bool {
	for typ, value := range attributes(reported) {
		if find(written, typ&typeMask) == nil && !zero(value) {
			return false
		}
	}
	return true
}

func zero(value []byte) bool { return len(bytes.Trim(value, "\x00")) == 0 }

// ExprName returns the name of an expression, such as "cmp".
func ExprName(expr []byte) string { return findString(expr, unix.NFTA_EXPR_NAME) }

// Target returns the chain that a rule jumps or goes to, else nothing.
func Target(r Rule) string {
	for _, expr := range r.Exprs {
		if ExprName(expr) == "immediate" {
			data := find(find(expr, unix.NFTA_EXPR_DATA), unix.NFTA_IMMEDIATE_DATA)
			if chain := find(find(data, unix.NFTA_DATA_VERDICT), unix.NFTA_VERDICT_CHAIN); chain != nil {
				return text(chain)
			}
		}
	}
	return ""
}

// LookedUp returns the set in which an expression looks something up, else nothing.
func LookedUp(expr []byte) string {
	if ExprName(expr) != "lookup" {
		return ""
	}
	return findString(find(expr, unix.NFTA_EXPR_DATA), unix.NFTA_LOOKUP_SET)
}

// UsesSet reports whether a rule looks something up in a set, or adds to it.
func UsesSet(r Rule, set string) bool {
	for _, expr := range r.Exprs {
		data := find(expr, unix.NFTA_EXPR_DATA)
		switch ExprName(expr) {
		case "lookup":
			if findString(data, unix.NFTA_LOOKUP_SET) == set {
				return true
			}
		case "dynset":
			if findString(data, unix.NFTA_DYNSET_SET_NAME) == set {
				return true
			}
		}
	}
	return false
}

// Counted returns the counts of a rule's counter; 0 where it has none.
func Counted(r Rule) (packets, bytes uint64) {
	for _, expr := range r.Exprs {
		if ExprName(expr) == "counter" {
			c := countsIn(expr)
			return c.Packets, c.Bytes
		}
	}
	return 0, 0
}

func countsIn(counter []byte) Counts {
	data := find(counter, unix.NFTA_EXPR_DATA)
	return Counts{findUint64(data, unix.NFTA_COUNTER_PACKETS), findUint64(data, unix.NFTA_COUNTER_BYTES)}
}
