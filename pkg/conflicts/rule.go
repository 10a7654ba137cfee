package conflicts

import (
	"net/netip"
	"slices"
)

// rule is what matters of a rule, whichever program wrote it. It is a plain value: what the node's interfaces, routes and
// ipsets are is asked when the rule is applied to packets.
type rule struct {
	where   string
	text    string
	comment string
	match   match
	action  action
	chain   string // where jumpTo and goTo lead

	untracks       bool // keeps connection tracking away, and with it every translation
	marks          bool // changes the packet's mark: the bits of markMask are cleared, then those of mark turned
	mark, markMask uint32
	markUnknown    bool // nobody knows to what

	queues         bool       // hands the packet to a program, without which the kernel drops it
	masquerades    bool       // translates to the address of the output interface
	to             netip.Addr // translates or redirects to this one, where it is a single one
	packets, bytes uint64     // its counter
}

// action is what a rule does to a packet that matches.
type action int

const (
	pass      action = iota // nothing that counts: it logs, or changes what no address depends on
	translate               // gives the packet another source address
	redirect                // gives it another destination
	accept                  // ends the search in this base chain
	drop                    // ends the packet
	returns                 // ends the search in this chain
	jumpTo                  // asks another chain first
	goTo                    // asks another chain, and returns from it to where this chain would
)

// match is the list of conditions that a packet has to meet, all of them.
type match []condition

// condition is one of them, as far as it matters.
type condition struct {
	about subject
	not   bool

	addresses  ranges   // source, destination
	bits       []byte   // source, where under is set: the address has these bits there
	under      []byte   //
	set        string   // sourceSet, destinationSet: the name of an ipset
	interfaces []string // input, output: names, or beginnings with a * behind
	mark, mask uint32   // marked
	from, upTo uint16   // protocol, port
	any        []match  // oneOf
}

// subject is what a condition is about. What a condition that is not understood would say is never assumed: the packets that
// it lets pass are in doubt, and doubtful packets raise no alarm.
type subject int

const (
	unknown        subject = iota // not understood: all packets may meet it, or none
	some                          // met by some packets of any pod to any destination: protocols, ports, chance
	never                         // met by no first packet of a pod's connection that leaves the node: a local address, a socket, a translated destination
	source                        // the pod's address
	destination                   //
	sourceSet                     // the pod's address is in an ipset
	destinationSet                //
	input                         // the interface that the packet came in by
	output                        // the interface by which it leaves
	marked                        // the packet's mark
	protocol                      // its number; all are met by some packets of any pod to any destination
	port                          // of the destination; likewise
	oneOf                         // one of several matches, as of the elements of a set of nf_tables
)

// ofSource reports whether a packet from an address meets the condition, which is about the source.
func (c condition) ofSource(addr netip.Addr) bool {
	if c.under == nil {
		return c.addresses.contain(addr)
	}
	bytes := addr.AsSlice()
	for i := range min(len(bytes), len(c.under)) {
		if bytes[i]&c.under[i] != c.bits[i] {
			return false
		}
	}
	return len(bytes) == len(c.under)
}

// impossible is a match that no packet meets.
func (m match) impossible() bool {
	return slices.ContainsFunc(m, func(c condition) bool { return c.about == never && !c.not })
}

// constant is a condition whose answer is known already.
func constant(met bool) condition { return condition{about: never, not: met} }
