// Package ruleset turns a policy and the attached pods into the desired state of one node's kernel: a plain value that can be
// compared, printed and handed to any backend.
//
// It is pure. It refuses to know how a backend spells a rule, and what the kernel holds now.
package ruleset

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// State is everything managed by ip-masq that the kernel should hold.
type State struct {
	Settings policy.Settings `json:"settings"`
	// KeepChain leaves a shared chain that already has rules as it is: the plugin creates it, only the agent rewrites it.
	KeepChain bool    `json:"keepChain,omitempty"`
	Tables    []Table `json:"tables"`
}

// Table is the state of one address family. What no destination matches is masqueraded.
type Table struct {
	Family       policy.Family        `json:"family"`
	Destinations []policy.Destination `json:"destinations"`
	Pods         []Pod                `json:"pods"`
}

// Pod is one address whose traffic the policy governs, and who owns it. Two owners may hold one address for a moment, when
// it was given away before the former owner's DEL.
type Pod struct {
	Owner   attachment.ID `json:"owner"`
	Address netip.Addr    `json:"address"`
	Label   string        `json:"label"`
}

// Build computes the state for a policy, the recorded attachments, and the pods that the kernel holds without a record.
// With SourcesAll there are no pods: the policy governs all traffic.
func Build(p policy.Policy, attachments []attachment.Attachment, unrecorded []Pod) State {
	state := State{Settings: p.Settings}
	pods := append(Pods(attachments...), unrecorded...)
	for _, family := range p.Settings.Families() {
		table := Table{Family: family, Destinations: p.Destinations(family), Pods: []Pod{}}
		if p.Settings.Sources == policy.SourcesPods {
			table.Pods = ofFamily(pods, family)
		}
		state.Tables = append(state.Tables, table)
	}
	return state
}

// Pods lists every address of every attachment.
func Pods(attachments ...attachment.Attachment) []Pod {
	var pods []Pod
	for _, a := range attachments {
		for _, addr := range a.Addresses {
			pods = append(pods, Pod{Owner: a.ID(), Address: addr, Label: a.Label()})
		}
	}
	return pods
}

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

// Sort puts pods in the order of Compare.
func Sort(pods []Pod) { slices.SortFunc(pods, Pod.Compare) }

// Compare orders pods by address, then owner.
func (p Pod) Compare(q Pod) int {
	return cmp.Or(p.Address.Compare(q.Address), cmp.Compare(p.Owner, q.Owner), cmp.Compare(p.Label, q.Label))
}

// Only returns the state with the policy of s, no other pods than the given ones, and no other families than theirs: what one
// attachment needs.
func (s State) Only(pods []Pod) State {
	out := State{Settings: s.Settings, KeepChain: s.KeepChain}
	for _, table := range s.Tables {
		own := ofFamily(pods, table.Family)
		if len(own) == 0 {
			continue
		}
		if s.Settings.Sources == policy.SourcesAll {
			own = []Pod{}
		}
		out.Tables = append(out.Tables, Table{Family: table.Family, Destinations: table.Destinations, Pods: own})
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
