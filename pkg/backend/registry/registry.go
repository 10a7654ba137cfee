// Package registry is the one list of backends: what can be asked for, what is tried in which order, and how each is opened.
//
// It refuses to remember anything: what was chosen on a node is recorded by package node.
package registry

import (
	"fmt"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/iptables"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/nftables"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// Choice is what a user can ask for by --backend and the plugin's key of that name.
type Choice string

// The choices. Auto takes the first kind that works, in the order of Candidates.
const (
	Auto     Choice = "auto"
	IPTables Choice = "iptables"
	NFTables Choice = "nftables"
)

// Host is the root directory of the host whose programs the backends use; empty for our own.
type Host = iptables.Host

// entry is one line of the list.
type entry struct {
	kind      backend.Kind
	choice    Choice
	open      func(Host) backend.Backend
	installed func(Host, policy.Family) error
	standing  func(Host, policy.Settings, policy.Family) bool
	leftover  func(Host, policy.Family) bool // of a probe that was killed
	hinted    func(Host) bool
	preferred func(Host) bool // the host's own default
}

var entries = []entry{
	iptablesEntry(backend.IPTablesNFT),
	iptablesEntry(backend.IPTablesLegacy),
	{
		kind:      backend.NFTables,
		choice:    NFTables,
		open:      func(Host) backend.Backend { return nftables.New() },
		installed: func(_ Host, f policy.Family) error { return nftables.Installed(f) },
		standing:  func(_ Host, s policy.Settings, f policy.Family) bool { return nftables.Standing(s, f) },
		leftover:  func(Host, policy.Family) bool { return false },
		hinted:    func(Host) bool { return false }, // the kubelet's hint tells one iptables from the other
		preferred: func(Host) bool { return false },
	},
}

func iptablesEntry(kind backend.Kind) entry {
	return entry{
		kind:      kind,
		choice:    IPTables,
		open:      func(h Host) backend.Backend { return iptables.New(kind, h) },
		installed: func(h Host, f policy.Family) error { return h.Installed(kind, f) },
		standing:  func(h Host, s policy.Settings, f policy.Family) bool { return h.Standing(kind, s, f) },
		leftover:  func(h Host, f policy.Family) bool { return h.Leftover(kind, f) },
		hinted:    func(h Host) bool { return h.Hinted(kind) },
		preferred: func(h Host) bool { flavour, ok := h.Flavour(); return ok && flavour == kind },
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
// that was. It is no part of an entry, because the plugin never prints and an entry would link it there.
func Render(choice Choice, inUse backend.Kind, state ruleset.State) string {
	if !choice.Allows(inUse) {
		inUse = choice.Kinds()[0]
	}
	if inUse == backend.NFTables {
		return nftables.Render(state)
	}
	return iptables.Render(state)
}

// Open returns the backend of a kind, nil for a kind that this build does not know.
func Open(host Host, kind backend.Kind) backend.Backend {
	for _, e := range entries {
		if e.kind == kind {
			return e.open(host)
		}
	}
	return nil
}

// Known reports whether this build has the kind.
func Known(kind backend.Kind) bool { return Auto.Allows(kind) }

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
