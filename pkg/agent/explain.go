package agent

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// explanation is what explain prints.
type explanation struct {
	Source      netip.Addr     `json:"src"`
	Destination netip.Addr     `json:"dst"`
	Verdict     policy.Verdict `json:"verdict"`
	Prefix      string         `json:"prefix"`
	Reason      string         `json:"reason"`
}

// explain names the verdict for the first packet from a source to a destination, and the reason. It looks at the policy and
// the records, not at the kernel: status says whether those are equal.
func (p Program) explain(o Options, _ []string) error {
	n := newNode(o, discard())
	inForce := p.inForce(o)
	if err := inForce.configErr; err != nil {
		_, _ = fmt.Fprintln(p.Stderr, "ip-masq-agent: the config is bad, explaining the policy in force instead:", err)
	}
	records, err := n.Records()
	if err != nil {
		return err
	}
	e := explainPolicy(inForce.policy, records, localAddresses(), o.Source, o.Destination)
	return p.print(o, e, func() {
		_, _ = fmt.Fprintf(p.Stdout, "%s -> %s: %s: %s\n", e.Source, e.Destination, e.Verdict, e.Reason)
	})
}

// explainPolicy follows a packet through the rules, in their order.
func explainPolicy(p policy.Policy, pods []attachment.Attachment, local []netip.Addr, src, dst netip.Addr) explanation {
	e := explanation{Source: src, Destination: dst, Verdict: policy.Keep}
	family := policy.FamilyOf(dst)
	isPod := slices.ContainsFunc(pods, func(a attachment.Attachment) bool { return slices.Contains(a.Addresses, src) })
	switch {
	case !slices.Contains(p.Settings.Families(), family):
		e.Reason = fmt.Sprintf("%s is off (--enable-ipv6)", family)
	case p.Settings.Sources == policy.SourcesPods && !isPod:
		e.Reason = fmt.Sprintf("%s is no address of an attached pod", src)
	case slices.Contains(local, dst):
		e.Reason = fmt.Sprintf("%s is an address of this node", dst)
	case p.Settings.Sources == policy.SourcesPods && family.Multicast().Contains(dst):
		e.Reason = fmt.Sprintf("%s is a multicast address", dst)
	default:
		e.byPrefix(p.Matcher(family))
	}
	return e
}

func (e *explanation) byPrefix(m policy.Matcher) {
	verdict, prefix := m.Verdict(e.Destination)
	e.Verdict = verdict
	if !prefix.IsValid() {
		e.Reason = "no prefix of the policy contains the destination"
		return
	}
	e.Prefix = prefix.String()
	e.Reason = fmt.Sprintf("%s is the most specific prefix of the policy that contains the destination", prefix)
}

// localAddresses are those that the kernel calls LOCAL, as far as interfaces have them.
func localAddresses() []netip.Addr {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var local []netip.Addr
	for _, address := range addresses {
		if prefix, err := netip.ParsePrefix(address.String()); err == nil {
			local = append(local, prefix.Addr().Unmap())
		}
	}
	return local
}
