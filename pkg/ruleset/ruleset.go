// Package ruleset turns a policy and the attached pods into the desired state of one node's kernel: a plain value that can be
// compared, printed and handed to any backend.
//
// It is pure. It refuses to know how a backend spells a rule, and what the kernel holds now.
package ruleset

import (
	"cmp"
	"net/netip"
	"slices"
	"sort"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// State is everything managed by ip-masq that the kernel should hold.
type State struct {
	Settings policy.Settings `json:"settings"`
	// KeepChain leaves a shared chain that already has rules as it is: the plugin creates it, only the agent rewrites it.
	KeepChain bool `json:"keepChain,omitempty"`
	// OutputInterfaces are those through which packets must leave to be masqueraded; none means all.
	OutputInterfaces policy.Interfaces `json:"outputInterfaces,omitempty"`
	Tables           []Table           `json:"tables"`
}

// Table is the state of one address family. What no destination matches is masqueraded.
type Table struct {
	Family       policy.Family        `json:"family"`
	Destinations []policy.Destination `json:"destinations"`
	// Groups are the egress groups that a destination of the family leads to, by their numbers.
	Groups []Group `json:"groups,omitempty"`
	Pods   []Pod   `json:"pods"`
	// OptedOut are the addresses that keep their source although the policy governs what is no pod's (Settings.NodeTraffic).
	OptedOut []netip.Addr `json:"optedOut,omitempty"`
}

// Group is an egress group as it is on this node.
type Group struct {
	Number    int            `json:"number"`              // as in policy.Destination
	Sources   []netip.Prefix `json:"sourceAddresses"`     // those of the family, as the policy has them
	Addresses []netip.Addr   `json:"addresses,omitempty"` // the pool: sorted; policy.Choose says which one a source gets
	Missing   policy.Verdict `json:"missing"`             // what happens where there are no addresses: Masquerade or Drop
}

// Pod is one address whose traffic the policy governs, and who owns it. Two owners may hold one address for a moment, when
// it was given away before the former owner's DEL.
type Pod struct {
	Owner   attachment.ID `json:"owner"`
	Address netip.Addr    `json:"address"`
	Label   string        `json:"label"`
	// Translated is the source address that the pod's annotation chose, of those that the node has; invalid where there is none.
	Translated netip.Addr `json:"translated,omitzero"`
}

// Node is what the state depends on beside the policy and the attachments.
type Node struct {
	Addresses  []netip.Addr            // the node's own
	Unrecorded []Pod                   // pods that the kernel holds without a record
	OptedOut   []attachment.Attachment // those that have no rule because they keep their address
}

// Build computes the state for a policy and the recorded attachments on a node.
// With SourcesAll the only pods are those with a source address of their own: the policy governs all traffic.
func Build(p policy.Policy, attachments []attachment.Attachment, n Node) State {
	state := State{Settings: p.Settings, OutputInterfaces: p.OutputInterfaces}
	pods := append(n.Pods(p.Settings, attachments...), n.Unrecorded...)
	for _, family := range p.Settings.Families() {
		table := Table{Family: family, Destinations: p.Destinations(family), Pods: []Pod{}}
		table.Groups = groups(p, family, table.Destinations, n.Addresses)
		if NeedsOptedOut(p.Settings) {
			table.OptedOut = addresses(n.OptedOut, family)
		}
		table.Pods = withRules(p.Settings, ofFamily(pods, family))
		state.Tables = append(state.Tables, table)
	}
	return state
}

// Egress is what a node makes of one egress group, in all families.
type Egress struct {
	Group     int             `json:"group"`     // counted from 1
	Addresses []netip.Addr    `json:"addresses"` // the pools, of which each connection gets one address of its family
	Missing   []policy.Family `json:"missing"`   // families with destinations, of which the node has no address
}

// Egress puts the groups of the families together.
func (s State) Egress() []Egress {
	most := 0
	for _, table := range s.Tables {
		for _, g := range table.Groups {
			most = max(most, g.Number)
		}
	}
	all := []Egress{}
	for number := 1; number <= most; number++ { // a sort of structs would add 20 KiB to the plugin
		e := Egress{Group: number, Addresses: []netip.Addr{}, Missing: []policy.Family{}}
		there := false
		for _, table := range s.Tables {
			for _, g := range table.Groups {
				if g.Number != number {
					continue
				}
				there = true
				e.Addresses = append(e.Addresses, g.Addresses...)
				if len(g.Addresses) == 0 {
					e.Missing = append(e.Missing, table.Family)
				}
			}
		}
		if there {
			all = append(all, e)
		}
	}
	return all
}

// groups are the egress groups that the destinations lead to.
func groups(p policy.Policy, family policy.Family, destinations []policy.Destination, node []netip.Addr) (all []Group) {
	used := map[int]bool{}
	for _, d := range destinations {
		used[d.Group] = true
	}
	for i, e := range p.Egress {
		if !used[i+1] {
			continue
		}
		all = append(all, Group{
			Number:    i + 1,
			Sources:   prefixes(e.SourceAddresses, family),
			Addresses: policy.Pool(family, e.SourceAddresses, node),
			Missing:   e.WhenMissing.Verdict(),
		})
	}
	return all
}

// prefixes returns those of one family.
func prefixes(all []netip.Prefix, family policy.Family) (own []netip.Prefix) {
	for _, p := range all {
		if policy.FamilyOf(p.Addr()) == family {
			own = append(own, p)
		}
	}
	return own
}

// addresses lists those of one family, sorted and each once.
func addresses(attachments []attachment.Attachment, family policy.Family) (all []netip.Addr) {
	for _, a := range attachments {
		for _, addr := range a.Addresses {
			if policy.FamilyOf(addr) == family {
				all = append(all, addr)
			}
		}
	}
	policy.SortAddresses(all)
	return slices.Compact(all)
}

// Pods lists every address of every attachment, whatever their annotations choose.
func Pods(attachments ...attachment.Attachment) []Pod {
	var pods []Pod
	for _, a := range attachments {
		for _, addr := range a.Addresses {
			pods = append(pods, Pod{Owner: a.ID(), Address: addr, Label: a.Label()})
		}
	}
	return pods
}

// Pods lists every address of every attachment, with the source address that its annotation chooses of those of the node, as long
// as the settings allow that.
func (n Node) Pods(s policy.Settings, attachments ...attachment.Attachment) []Pod {
	pods := Pods(attachments...)
	i := 0
	for _, a := range attachments {
		chosen := Chosen(s, a)
		for _, addr := range a.Addresses {
			if pool := policy.Pool(policy.FamilyOf(addr), chosen, n.Addresses); len(pool) > 0 {
				pods[i].Translated = policy.Choose(pool, addr)
			}
			i++
		}
	}
	return pods
}

// Chosen are the prefixes of an attachment's annotation, none where the settings do not allow it any more.
func Chosen(s policy.Settings, a attachment.Attachment) []netip.Prefix {
	if !s.PodAnnotations.Allows(policy.SourceAddressesAnnotation) {
		return nil
	}
	return a.SourceAddresses
}

// SourceAddresses lists the prefixes in which addresses of the node may become the source of connections: those of the egress groups,
// and those that attachments chose. Node.Addresses has to hold what the node has in them.
func SourceAddresses(p policy.Policy, attachments []attachment.Attachment) (all []netip.Prefix) {
	all = p.SourceAddresses()
	for _, a := range attachments {
		all = append(all, Chosen(p.Settings, a)...)
	}
	return all
}

// NeedsOptedOut reports whether Build asks for the attachments that keep their address, because the policy would otherwise take
// them for the node's traffic.
func NeedsOptedOut(s policy.Settings) bool { return s.NodeTraffic && s.Sources == policy.SourcesPods }

// Unrecorded returns those pods whose owner has no record.
func Unrecorded(pods []Pod, attachments []attachment.Attachment) []Pod {
	recorded := make(map[attachment.ID]bool, len(attachments))
	for _, a := range attachments {
		recorded[a.ID()] = true
	}
	return slices.DeleteFunc(slices.Clone(pods), func(p Pod) bool { return recorded[p.Owner] })
}

// ofFamily returns the pods of one family, sorted and each once.
func ofFamily(pods []Pod, family policy.Family) []Pod {
	out := []Pod{}
	for _, pod := range pods {
		if policy.FamilyOf(pod.Address) == family {
			out = append(out, pod)
		}
	}
	Sort(out)
	return slices.Compact(out)
}

// withRules returns the pods that have rules of their own.
func withRules(s policy.Settings, pods []Pod) []Pod {
	if s.Sources == policy.SourcesAll {
		return slices.DeleteFunc(pods, func(pod Pod) bool { return !pod.Translated.IsValid() })
	}
	return pods
}

// Sort puts pods in the order of Compare. Package sort has one copy of its code for all types, where slices has one for each: 25 KiB
// of a plugin that starts for every pod.
func Sort(pods []Pod) { sort.Sort(ordered(pods)) }

type ordered []Pod

func (o ordered) Len() int           { return len(o) }
func (o ordered) Less(i, j int) bool { return o[i].Compare(o[j]) < 0 }
func (o ordered) Swap(i, j int)      { o[i], o[j] = o[j], o[i] }

// Compare orders pods by address, then owner.
func (p Pod) Compare(q Pod) int {
	return cmp.Or(p.Address.Compare(q.Address), cmp.Compare(p.Owner, q.Owner), cmp.Compare(p.Label, q.Label))
}

// Only returns the state with the policy of s, no other pods than the given ones, and no other families than theirs.
func (s State) Only(pods []Pod) State {
	out := State{Settings: s.Settings, KeepChain: s.KeepChain, OutputInterfaces: s.OutputInterfaces}
	for _, table := range s.Tables {
		own := ofFamily(pods, table.Family)
		if len(own) == 0 {
			continue
		}
		table.Pods = withRules(s.Settings, own)
		out.Tables = append(out.Tables, table)
	}
	return out
}

// Of returns the state of the given families alone.
func (s State) Of(families ...policy.Family) State {
	s.Tables = slices.DeleteFunc(slices.Clone(s.Tables), func(t Table) bool { return !slices.Contains(families, t.Family) })
	return s
}

// Count returns the number of pods in all families.
func (s State) Count() int {
	n := 0
	for _, table := range s.Tables {
		n += len(table.Pods)
	}
	return n
}
