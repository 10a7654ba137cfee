// Package registry is the one list of backends: what can be asked for, what is tried in which order, and how each is opened.
//
// It refuses to remember anything: what was chosen on a node is recorded by package node.
package registry

import (
	"fmt"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/iptables"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// Choice is what a user can ask for by --backend and the plugin's key of that name.
type Choice string

// The choices. Auto takes the first kind that works, in the order of Candidates.
const (
	Auto     Choice = "auto"
	IPTables Choice = "iptables"
)

// entry is one line of the list.
type entry struct {
	kind      backend.Kind
	choice    Choice
	open      func() backend.Backend
	installed func(policy.Family) error
	standing  func(policy.Settings, policy.Family) bool
	hinted    func() bool
	preferred func() bool // the host's own default
	render    func(ruleset.State) string
}

var entries = []entry{
	iptablesEntry(backend.IPTablesNFT),
	iptablesEntry(backend.IPTablesLegacy),
}

func iptablesEntry(kind backend.Kind) entry {
	return entry{
		kind:      kind,
		choice:    IPTables,
		open:      func() backend.Backend { return iptables.New(kind) },
		installed: func(f policy.Family) error { return iptables.Installed(kind, f) },
		standing:  func(s policy.Settings, f policy.Family) bool { return iptables.Standing(kind, s, f) },
		hinted:    func() bool { return iptables.Hinted(kind) },
		preferred: func() bool { flavour, ok := iptables.HostFlavour(); return ok && flavour == kind },
		render:    iptables.Render,
	}
}

// ParseChoice reads a choice; the empty text is Auto.
func ParseChoice(text string) (Choice, error) {
	choice := Choice(text)
	if text == "" || choice == Auto {
		return Auto, nil
	}
	if slices.Contains(Choices(), choice) {
		return choice, nil
	}
	return "", fmt.Errorf("backend %q: want one of %q", text, Choices())
}

// Choices lists everything that can be asked for.
func Choices() []Choice {
	choices := []Choice{Auto}
	for _, e := range entries {
		if !slices.Contains(choices, e.choice) {
			choices = append(choices, e.choice)
		}
	}
	return choices
}

// Render prints a state as the kind in use would have it; where that is unknown or not what was asked for, as the first kind
// that was.
func Render(choice Choice, inUse backend.Kind, state ruleset.State) (string, error) {
	if !choice.Allows(inUse) {
		inUse = choice.Kinds()[0]
	}
	for _, e := range entries {
		if e.kind == inUse {
			return e.render(state), nil
		}
	}
	return "", fmt.Errorf("%w: %q is not a backend of this build", backend.ErrUnavailable, inUse)
}

// Open returns the backend of a kind, nil for a kind that this build does not know.
func Open(kind backend.Kind) backend.Backend {
	for _, e := range entries {
		if e.kind == kind {
			return e.open()
		}
	}
	return nil
}

// Allows reports whether the choice includes the kind.
func (c Choice) Allows(kind backend.Kind) bool {
	return slices.ContainsFunc(entries, func(e entry) bool { return e.kind == kind && (c == Auto || c == e.choice) })
}

// Kinds lists the kinds that the choice includes.
func (c Choice) Kinds() []backend.Kind {
	var kinds []backend.Kind
	for _, e := range entries {
		if c.Allows(e.kind) {
			kinds = append(kinds, e.kind)
		}
	}
	return kinds
}

// Candidate is a kind to try and why it comes where it does.
type Candidate struct {
	Kind   backend.Kind
	Reason string
}

// Candidates orders the kinds that the choice allows: where our chain already stands, where the kubelet hints, what the host's
// iptables is, then the rest. Evidence is asked for only while it can make a difference, because some of it costs a process.
func Candidates(choice Choice, s policy.Settings, family policy.Family) []Candidate {
	rest := slices.DeleteFunc(slices.Clone(entries), func(e entry) bool { return !choice.Allows(e.kind) })
	var out []Candidate
	take := func(reason string, matches func(entry) bool) {
		if i := slices.IndexFunc(rest, matches); i >= 0 {
			out = append(out, Candidate{rest[i].kind, reason})
			rest = slices.Delete(rest, i, i+1)
		}
	}
	take(s.Chain+" already stands there", func(e entry) bool { return e.standing(s, family) })
	if len(out) == 0 {
		take("the kubelet's hint chain is there", func(e entry) bool { return e.hinted() })
	}
	take("it is what the host's iptables is", func(e entry) bool { return e.preferred() })
	for _, e := range rest {
		out = append(out, Candidate{e.kind, "nothing better works"})
	}
	return out
}

// Installed reports what a kind lacks on this host, without starting a process in the usual case.
func Installed(kind backend.Kind, family policy.Family) error {
	for _, e := range entries {
		if e.kind == kind {
			return e.installed(family)
		}
	}
	return fmt.Errorf("%w: %q is not a backend of this build", backend.ErrUnavailable, kind)
}

// Standing lists the kinds in which something of ours may stand, for callers that lost the record of what was chosen.
func Standing(s policy.Settings, family policy.Family) []backend.Kind {
	var kinds []backend.Kind
	for _, e := range entries {
		if e.standing(s, family) {
			kinds = append(kinds, e.kind)
		}
	}
	return kinds
}
