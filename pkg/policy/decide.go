package policy

import (
	"fmt"
	"net/netip"
	"slices"
)

// Packet is the first packet of a connection as POSTROUTING sees it: behind the Services, and with its route.
type Packet struct {
	Source, Destination netip.Addr
	Output              string // the interface through which it leaves
	Local               bool   // the destination is the node's own

	Attached bool // the source is an address of an attached pod
	OptedOut bool // or of a pod that opted out, or whose packets pass the node by
	// Chosen are the source addresses that the pod's annotation names, where the policy lets it.
	Chosen []netip.Prefix
}

// Cause says which part of the policy decides.
type Cause string

// The causes, in the order in which they are asked.
const (
	ByFamily      Cause = "family"      // the family is off
	BySource      Cause = "source"      // the policy is not about this source
	ByMulticast   Cause = "multicast"   // a pod's packet to a multicast address
	ByLocal       Cause = "local"       // the destination is the node's own
	ByInterface   Cause = "interface"   // outputInterfaces leaves this one out
	ByPrefix      Cause = "prefix"      // the most specific prefix that contains the destination
	ByDefault     Cause = "default"     // no prefix contains it
	ByAnnotation  Cause = "annotation"  // the pod chose a source address
	ByWhenMissing Cause = "whenMissing" // the node has none of the source addresses of the egress group
)

// Outcome is the policy's answer.
type Outcome struct {
	Verdict Verdict
	Cause   Cause
	Prefix  netip.Prefix // what matched the destination; invalid where none did, or none was asked
	Group   int          // the egress group of the prefix, counted from 1; 0 where it is in none
	Address netip.Addr   // the source address, where the verdict is Translate
}

// Decide says what becomes of a connection on a node that has the given addresses. It is the policy in one place, and the order
// of its questions is the precedence:
//
//  1. A family that is off is left alone.
//  2. The source: the addresses of attached pods; with nodeTraffic also what is no pod's; with sources "all" everything. What is
//     bound for multicast keeps its source, but for sources "all".
//  3. What is bound for the node itself keeps its source.
//  4. What leaves through an interface that outputInterfaces leaves out keeps its source.
//  5. The most specific prefix that contains the destination decides, whichever list it is in: nonMasqueradeCIDRs keeps,
//     masqueradeCIDRs masquerades, egress translates. What no prefix contains is masqueraded.
//  6. Where it does not keep, the source addresses of the pod's annotation go before those of the group. An annotation whose
//     addresses the node lacks counts for nothing; a group's whenMissing says what happens then.
//
// Every backend renders this, and explain and the tests compare with it.
func (p Policy) Decide(packet Packet, node []netip.Addr) Outcome {
	return p.Decider(node).Decide(packet)
}

// Decider is a policy that is prepared for many questions, on a node that has the given addresses. The zero value keeps all.
type Decider struct {
	Policy
	node     []netip.Addr
	matchers map[Family]Matcher
}

// Decider prepares the policy.
func (p Policy) Decider(node []netip.Addr) Decider {
	d := Decider{Policy: p, node: node, matchers: map[Family]Matcher{}}
	for _, family := range p.Settings.Families() {
		d.matchers[family] = p.Matcher(family)
	}
	return d
}

// Has reports whether an address is one of those that the node has.
func (d Decider) Has(address netip.Addr) bool { return slices.Contains(d.node, address) }

// SourceAddresses are the prefixes of which an outcome's address is, or would be if the node had one; none where the policy chooses
// none.
func (d Decider) SourceAddresses(packet Packet, out Outcome) []netip.Prefix {
	switch {
	case out.Cause == ByAnnotation:
		return packet.Chosen
	case out.Group > 0:
		return d.Egress[out.Group-1].SourceAddresses
	}
	return nil
}

// Pool are the source addresses that connections to a destination share, none where the policy chooses none for it.
func (d Decider) Pool(destination netip.Addr) []netip.Addr {
	family := FamilyOf(destination)
	match, _ := d.matchers[family].Match(destination)
	if match.Group == 0 {
		return nil
	}
	return Pool(family, d.Egress[match.Group-1].SourceAddresses, d.node)
}

// Decide is Policy.Decide.
func (d Decider) Decide(packet Packet) Outcome {
	family := FamilyOf(packet.Destination)
	matcher, on := d.matchers[family]
	if !on {
		return Outcome{Verdict: Keep, Cause: ByFamily}
	}
	if d.Settings.Sources == SourcesPods {
		if !packet.Attached && (packet.OptedOut || !d.Settings.NodeTraffic) {
			return Outcome{Verdict: Keep, Cause: BySource}
		}
		if family.Multicast().Contains(packet.Destination) {
			return Outcome{Verdict: Keep, Cause: ByMulticast}
		}
	}
	if packet.Local {
		return Outcome{Verdict: Keep, Cause: ByLocal}
	}
	if !d.OutputInterfaces.Match(packet.Output) {
		return Outcome{Verdict: Keep, Cause: ByInterface}
	}
	match, found := matcher.Match(packet.Destination)
	out := Outcome{Verdict: match.Verdict, Cause: ByPrefix, Prefix: match.Prefix, Group: match.Group}
	if !found {
		out.Cause = ByDefault
	}
	if out.Verdict == Keep {
		return out
	}
	if pool := Pool(family, packet.Chosen, d.node); packet.Attached && len(pool) > 0 {
		out.Verdict, out.Cause, out.Address = Translate, ByAnnotation, Choose(pool, packet.Source)
		return out
	}
	if out.Verdict == Translate {
		group := d.Egress[match.Group-1]
		if pool := Pool(family, group.SourceAddresses, d.node); len(pool) > 0 {
			out.Address = Choose(pool, packet.Source)
			return out
		}
		out.Verdict, out.Cause = group.WhenMissing.Verdict(), ByWhenMissing
	}
	return out
}

// String prints what there is, in the order of the fields.
func (o Outcome) String() string {
	text := fmt.Sprintf("%s %s", o.Verdict, o.Cause)
	if o.Prefix.IsValid() {
		text += " " + o.Prefix.String()
	}
	if o.Group > 0 {
		text += fmt.Sprintf(" group %d", o.Group)
	}
	if o.Address.IsValid() {
		text += " to " + o.Address.String()
	}
	return text
}
