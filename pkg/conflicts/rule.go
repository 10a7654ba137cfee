package conflicts

import (
	"net/netip"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// rule is what matters of a rule, whichever program wrote it.
type rule struct {
	where   string
	text    string
	comment string
	match   match
	action  action
	chain   string // where jumps leads
}

// action is what a rule does to a packet that matches.
type action int

const (
	passes      action = iota // nothing that changes or ends the search: marks, logs, counts
	masquerades               // gives the packet another source
	accepts                   // ends the search in this table
	returns                   // ends the search in this chain
	jumps                     // asks another chain first
)

// match is the condition under which a rule applies to a new connection of a pod, as far as it is understood.
type match struct {
	family       policy.Family // 0: both
	sources      []address
	destinations []address
	never        bool // needs what a pod's packet to elsewhere does not have: a mark, a local address, the loopback interface
	other        bool // has conditions that are not understood
}

// address is a prefix, or everything but it.
type address struct {
	prefix netip.Prefix
	not    bool
}

// marked judges by a packet without a mark: what another program marked is that program's own business.
func (m *match) marked(wanted uint32, not bool) { m.never = m.never || (wanted != 0) != not }

// local is about either address: a pod's is not the node's, and what is bound for the node is never masqueraded.
func (m *match) local(not bool) { m.never = m.never || !not }

// loopback is about the interface over which nothing leaves.
func (m *match) loopback(not bool) { m.never = m.never || !not }
