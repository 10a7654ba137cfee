package nfnl

import (
	"iter"

	"golang.org/x/sys/unix"
)

// Notice is one notification about nf_tables: of an object, or of the end of the transaction that changed it, which says who
// wrote it.
type Notice struct {
	Table, Chain string // of the object; Chain is empty for sets and what is in them, and for tables
	End          bool
	Writer       Writer // with End
}

// Writer is the process that sent a transaction, as the kernel names it: by its thread, in the first PID namespace.
type Writer struct {
	PID  int
	Name string
}

// Notices reads the notifications of one datagram in their order.
func Notices(datagram []byte) iter.Seq[Notice] {
	return func(yield func(Notice) bool) {
		for m, rest, ok := next(datagram); ok; m, rest, ok = next(rest) {
			if len(m.body) < familyHeader || m.typ>>8 != unix.NFNL_SUBSYS_NFTABLES {
				continue
			}
			if !yield(notice(m)) {
				return
			}
		}
	}
}

func notice(m message) Notice {
	attrs := m.attributes()
	switch m.typ & 0xff {
	case unix.NFT_MSG_NEWGEN:
		return Notice{End: true, Writer: Writer{int(findUint32(attrs, unix.NFTA_GEN_PROC_PID)), findString(attrs, unix.NFTA_GEN_PROC_NAME)}}
	case unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
		return Notice{Table: findString(attrs, unix.NFTA_RULE_TABLE), Chain: findString(attrs, unix.NFTA_RULE_CHAIN)}
	case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN:
		return Notice{Table: findString(attrs, unix.NFTA_CHAIN_TABLE), Chain: findString(attrs, unix.NFTA_CHAIN_NAME)}
	}
	return Notice{Table: findString(attrs, unix.NFTA_TABLE_NAME)} // the first attribute of all others, too
}
