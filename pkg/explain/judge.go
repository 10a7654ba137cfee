package explain

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Facts are what the policy's answer depends on beside the two addresses.
type Facts struct {
	Policy   policy.Policy
	Attached bool // the source is an address of an attached pod
	Local    bool // the destination is an address of the node
}

// cause says which part of the policy decides.
type cause int

const (
	byPrefix cause = iota
	byDefault
	familyOff
	notAttached
	localDestination
	multicast
)

// Judgement is the policy's answer.
type Judgement struct {
	Verdict policy.Verdict
	Prefix  netip.Prefix // invalid where no prefix decides
	cause   cause
}

// Judge follows a packet through the desired state, in the order of its rules. It looks at nothing else: what the kernel does
// is compared with it.
func Judge(f Facts, destination netip.Addr) Judgement {
	family := policy.FamilyOf(destination)
	ofPods := f.Policy.Settings.Sources == policy.SourcesPods
	switch {
	case !slices.Contains(f.Policy.Settings.Families(), family):
		return Judgement{Verdict: policy.Keep, cause: familyOff}
	case ofPods && !f.Attached:
		return Judgement{Verdict: policy.Keep, cause: notAttached}
	case f.Local:
		return Judgement{Verdict: policy.Keep, cause: localDestination}
	case ofPods && family.Multicast().Contains(destination):
		return Judgement{Verdict: policy.Keep, cause: multicast}
	}
	verdict, prefix := f.Policy.Matcher(family).Verdict(destination)
	if !prefix.IsValid() {
		return Judgement{Verdict: verdict, cause: byDefault}
	}
	return Judgement{Verdict: verdict, Prefix: prefix}
}

// reason is the sentence for people.
func (j Judgement) reason(q Question) string {
	switch j.cause {
	case familyOff:
		return fmt.Sprintf("%s is off (--enable-ipv6)", q.family())
	case notAttached:
		return fmt.Sprintf("%s is no address of an attached pod", q.Source)
	case localDestination:
		return fmt.Sprintf("%s is an address of this node", q.Destination)
	case multicast:
		return fmt.Sprintf("%s is a multicast address", q.Destination)
	case byDefault:
		return "no prefix of the policy contains the destination"
	}
	return fmt.Sprintf("%s is the most specific prefix of the policy that contains the destination", j.Prefix)
}
