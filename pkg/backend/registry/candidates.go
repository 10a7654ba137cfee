package registry

import (
	"fmt"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Candidate is a kind to try and why it comes where it does.
type Candidate struct {
	Kind   backend.Kind
	Reason string
}

// Candidates orders the kinds that the choice allows: where our chain already stands, where the kubelet hints, what the host's
// iptables is, then the rest. Evidence is asked for only while it can make a difference, because some of it costs a process.
func Candidates(host Host, choice Choice, s policy.Settings, family policy.Family) []Candidate {
	rest := slices.DeleteFunc(slices.Clone(entries), func(e entry) bool { return !choice.Allows(e.kind) })
	var out []Candidate
	take := func(reason string, matches func(entry) bool) {
		if i := slices.IndexFunc(rest, matches); i >= 0 {
			out = append(out, Candidate{rest[i].kind, reason})
			rest = slices.Delete(rest, i, i+1)
		}
	}
	take(s.Chain+" already stands there", func(e entry) bool { return e.standing(host, s, family) })
	if len(out) == 0 {
		take("the kubelet's hint chain is there", func(e entry) bool { return e.hinted(host) })
	}
	take("it is what the host's iptables is", func(e entry) bool { return e.preferred(host) })
	for _, e := range rest {
		out = append(out, Candidate{e.kind, reasonLast})
	}
	return out
}

// Installed reports what a kind lacks on this host, without starting a process in the usual case.
func Installed(host Host, kind backend.Kind, family policy.Family) error {
	for _, e := range entries {
		if e.kind == kind {
			return e.installed(host, family)
		}
	}
	return fmt.Errorf("%w: %q is not a backend of this build", backend.ErrUnavailable, kind)
}

// reasonLast is why a kind was taken that nothing spoke for.
const reasonLast = "no working iptables found on the host"

// Standing lists the kinds in which something managed by ip-masq may stand, what a killed probe left included, for callers that
// lost the record of what was chosen.
func Standing(host Host, s policy.Settings, family policy.Family) []backend.Kind {
	var kinds []backend.Kind
	for _, e := range entries {
		if e.standing(host, s, family) || e.leftover(host, family) {
			kinds = append(kinds, e.kind)
		}
	}
	return kinds
}
