package node

import (
	"context"
	"net/netip"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// FlowChange ends tracked connections, which keep the source address that they began with whatever the rules say now. It begins
// before the rules change.
type FlowChange interface {
	// End deletes the connections of the given sources that contradict the rules now, by what the former ones gave them, or
	// none; no other. With each source comes what is known of its packets. It is called once.
	End(ctx context.Context, former, now policy.Decider, sources map[netip.Addr]policy.Packet) (deleted int, err error)
}

// Rules are what decides about connections: a policy, and those of the node's own addresses that it may give them.
type Rules struct {
	Policy    policy.Policy
	Addresses []netip.Addr
}

// Equal reports whether both decide the same about every connection.
func (r Rules) Equal(o Rules) bool {
	return r.Policy.Equal(o.Policy) && slices.Equal(r.Addresses, o.Addresses)
}

func (r Rules) decider() policy.Decider { return r.Policy.Decider(r.Addresses) }

// EndFlows ends the connections that contradict the rules now: those of the sources that a Sync returned as New, and all
// attached pods' where it returned Former rules, which may have given them another address. Call it after that Sync: a
// connection that is ended earlier would come back with its old address. It takes no lock, and its failure is no reason to call
// the Sync one: the rules are right, and old connections end by themselves.
func (n *Node) EndFlows(ctx context.Context, former *Rules, now Rules, sources []netip.Addr) (ended int, err error) {
	if n.flows == nil {
		return 0, nil
	}
	n.beginFlows()
	n.changingMu.Lock()
	change := n.changing
	n.changing = nil
	n.changingMu.Unlock()
	if change == nil {
		return 0, nil
	}
	decider := now.decider()
	if former == nil {
		return change.End(ctx, decider, decider, n.senders(func(a netip.Addr) bool { return slices.Contains(sources, a) }))
	}
	return change.End(ctx, former.decider(), decider, n.senders(func(netip.Addr) bool { return true }))
}

// senders are the wanted addresses of pods, with what is known of their packets. Those that opted out are among them, because a
// policy about all traffic takes no heed of that. An address that was given away is the attached pod's.
func (n *Node) senders(wanted func(netip.Addr) bool) map[netip.Addr]policy.Packet {
	senders := map[netip.Addr]policy.Packet{}
	add := func(attachments []attachment.Attachment, packet func(a attachment.Attachment) policy.Packet) {
		for _, a := range attachments {
			for _, address := range a.Addresses {
				if wanted(address) {
					senders[address] = packet(a)
				}
			}
		}
	}
	optedOut, _ := n.OptedOut()
	add(optedOut, func(attachment.Attachment) policy.Packet { return policy.Packet{OptedOut: true} })
	records, _ := n.records.List()
	add(records, func(a attachment.Attachment) policy.Packet {
		return policy.Packet{Attached: true, Chosen: a.SourceAddresses}
	})
	return senders
}

// addressesChanged reports whether those of the node's addresses that the policy may give are others than at the last good Sync.
func (n *Node) addressesChanged(p policy.Policy) bool {
	records, _ := n.Records()
	now, err := SourceAddresses(p, records)
	before := n.formerAddresses()
	return before != nil && err == nil && !slices.Equal(now, *before)
}

// formerRules returns what decided until a Sync that ended well, nil where nothing did or it is the same. A change that went back while
// the Sync ran counts, because connections may have begun by it. Where it is not known what the node had before, it is taken to be
// what it has.
func (n *Node) formerRules(former *policy.Policy, now policy.Policy, addresses []netip.Addr, changed bool) *Rules {
	before := n.formerAddresses()
	n.keepAddresses(now, addresses)
	if former == nil || !changed && (before == nil || slices.Equal(*before, addresses)) {
		return nil
	}
	if before == nil {
		records, _ := n.Records()
		known, _ := SourceAddresses(*former, records)
		before = &known
	}
	return &Rules{*former, *before}
}

// newAddresses are those on record that were not, or were another attachment's, at the last Sync that ended well: all of them at
// the first one. From then on they are known.
func (n *Node) newAddresses() (fresh []netip.Addr) {
	records, _ := n.Records()
	governed := map[ruleset.Pod]bool{}
	for _, pod := range ruleset.Pods(records...) {
		if !n.governedBefore[pod] {
			fresh = append(fresh, pod.Address)
		}
		governed[pod] = true
	}
	n.governedBefore = governed
	return fresh
}

// beginFlows is called before the rules change to another policy. A Sync that failed has begun already.
func (n *Node) beginFlows() {
	n.changingMu.Lock()
	defer n.changingMu.Unlock()
	if n.flows != nil && n.changing == nil {
		n.changing = n.flows()
	}
}
