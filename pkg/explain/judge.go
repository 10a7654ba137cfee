package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// judgement is the policy's answer, and what it was asked.
type judgement struct {
	policy.Outcome
	policy policy.Policy
	packet policy.Packet
	pool   []netip.Addr // the addresses of which one was chosen, where one was
}

// judge asks the policy about a packet. It looks at nothing else: what the kernel does is compared with it.
func (n Node) judge(q Question, way route) judgement {
	packet := policy.Packet{
		Source: q.Source, Destination: q.Destination, Output: way.output, Local: way.local,
		OptedOut: isOf(n.OptedOut, q.Source) || isOf(n.Bypassing, q.Source),
	}
	for _, a := range n.Attachments {
		if slices.Contains(a.Addresses, q.Source) {
			packet.Attached, packet.Chosen = true, ruleset.Chosen(n.Policy.Settings, a)
		}
	}
	j := judgement{n.Policy.Decide(packet, n.Addresses), n.Policy, packet, nil}
	switch {
	case j.Verdict != policy.Translate:
	case j.Cause == policy.ByAnnotation:
		j.pool = policy.Pool(q.family(), packet.Chosen, n.Addresses)
	default:
		j.pool = policy.Pool(q.family(), j.group().SourceAddresses, n.Addresses)
	}
	return j
}

// group is the egress group that decides.
func (j judgement) group() policy.Egress { return j.policy.Egress[j.Group-1] }

// governsOthers reports whether the policy is about the packet although its source is no pod's.
func (j judgement) governsOthers() bool {
	return !j.packet.Attached && j.policy.Settings.Sources == policy.SourcesPods && j.Cause != policy.BySource && j.Cause != policy.ByFamily
}

// reason is the sentence for people.
func (j judgement) reason(q Question) string {
	switch j.Cause {
	case policy.ByFamily:
		return fmt.Sprintf("%s is off (--enable-ipv6)", q.family())
	case policy.BySource:
		if j.packet.OptedOut {
			return fmt.Sprintf("%s is the address of a pod that keeps it", q.Source)
		}
		return fmt.Sprintf("%s is no address of an attached pod", q.Source)
	case policy.ByLocal:
		return fmt.Sprintf("%s is an address of this node", q.Destination)
	case policy.ByMulticast:
		return fmt.Sprintf("%s is a multicast address", q.Destination)
	case policy.ByInterface:
		return fmt.Sprintf("the packet leaves by %s, which outputInterfaces leaves out (%s)", named(j.packet.Output), strings.Join(j.policy.OutputInterfaces, ", "))
	case policy.ByPrefix, policy.ByDefault, policy.ByAnnotation, policy.ByWhenMissing:
	}
	text := "no prefix of the policy contains the destination"
	if j.Prefix.IsValid() {
		text = fmt.Sprintf("%s is the most specific prefix of the policy that contains the destination", j.Prefix)
	}
	switch {
	case j.Cause == policy.ByAnnotation:
		text += fmt.Sprintf(", and the pod's annotation %s chooses %s", policy.SourceAddressesAnnotation, j.chosen())
	case j.Cause == policy.ByWhenMissing:
		text += fmt.Sprintf("; it is of egress group %d, and this node has no %s address in %s: whenMissing is %s",
			j.Group, q.family(), list(j.group().SourceAddresses), whenMissing(j.group()))
	case j.Verdict == policy.Translate:
		text += fmt.Sprintf("; it is of egress group %d, which chooses %s", j.Group, j.chosen())
	}
	if j.governsOthers() {
		text += fmt.Sprintf("; %s is no pod's address, and nodeTraffic has the policy govern those as well", q.Source)
	}
	return text
}

// chosen says which address of the pool the source gets, and why.
func (j judgement) chosen() string {
	if len(j.pool) == 1 {
		return fmt.Sprintf("%s, the only address of this node in it", j.Address)
	}
	return fmt.Sprintf("%s of this node's addresses %s: the last bits of %s say which, so that it stays the same", j.Address, list(j.pool), j.packet.Source)
}

func whenMissing(e policy.Egress) policy.WhenMissing {
	if e.WhenMissing == "" {
		return policy.MissingMasquerade
	}
	return e.WhenMissing
}

func list[T fmt.Stringer](all []T) string {
	texts := make([]string, len(all))
	for i, one := range all {
		texts[i] = one.String()
	}
	return strings.Join(texts, ", ")
}

func named(name string) string {
	if name == "" {
		return "no interface"
	}
	return name
}

// refusedFor are the annotations of the pod with the address that count for nothing because of podAnnotations: those refused when
// the pod started, and those that are not allowed any more.
func refusedFor(s policy.Settings, attachments []attachment.Attachment, addr netip.Addr) (names []string) {
	for _, a := range attachments {
		if !slices.Contains(a.Addresses, addr) {
			continue
		}
		names = append(names, a.Refused...)
		if len(a.SourceAddresses) > len(ruleset.Chosen(s, a)) {
			names = append(names, policy.SourceAddressesAnnotation)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
