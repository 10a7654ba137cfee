package registry

import (
	"fmt"

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
	var out []Candidate
	taken := map[backend.Kind]bool{}
	take := func(reason string, matches func(entry) bool) {
		for _, e := range entries {
			if choice.Allows(e.kind) && !taken[e.kind] && matches(e) {
				out, taken[e.kind] = append(out, Candidate{e.kind, reason}), true
				return
			}
		}
	}
	take(s.Chain+" already stands there", func(e entry) bool { return e.standing(host, s, family) })
	if len(out) == 0 {
		take("the kubelet's hint chain is there", func(e entry) bool { return e.hinted(host) })
	}
	take("it is what the host's iptables is", func(e entry) bool { return e.preferred(host) })
	for range entries {
		take(reasonLast, func(entry) bool { return true })
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
