package backend

import (
	"fmt"
	"slices"
)

// Object is a kind of thing that ip-masq keeps in the kernel.
type Object string

// The objects, from the outside in.
const (
	ObjectTable      Object = "table"
	ObjectChain      Object = "chain"
	ObjectRootRule   Object = "root-rule"   // leads traffic to ip-masq's chains
	ObjectPolicyRule Object = "policy-rule" // a rule of the shared chain, or a destination in its set
	ObjectPod        Object = "pod"         // the rule or set element of one pod address
)

// Objects lists them all.
func Objects() []Object {
	return []Object{ObjectTable, ObjectChain, ObjectRootRule, ObjectPolicyRule, ObjectPod}
}

// Problem is what is wrong with an object.
type Problem string

// The problems. Something that is unexpected stands where only ip-masq's objects should.
const (
	ProblemMissing    Problem = "missing"
	ProblemUnexpected Problem = "unexpected"
	ProblemDifferent  Problem = "different"
)

// Problems lists them all.
func Problems() []Problem {
	return []Problem{ProblemMissing, ProblemUnexpected, ProblemDifferent}
}

// Drift is one difference between the kernel and the desired state.
type Drift struct {
	Object  Object  `json:"object"`
	Problem Problem `json:"problem"`
	Detail  string  `json:"detail"`
}

// String is a drift in words.
func (d Drift) String() string { return fmt.Sprintf("%s %s: %s", d.Object, d.Problem, d.Detail) }

// Drifts collects differences.
type Drifts []Drift

// Add notes one. The detail is formatted as by fmt.Sprintf.
func (d *Drifts) Add(object Object, problem Problem, detail string, args ...any) {
	if len(args) > 0 {
		detail = fmt.Sprintf(detail, args...)
	}
	*d = append(*d, Drift{object, problem, detail})
}

// Has reports whether an object is among the differences.
func (d Drifts) Has(object Object) bool {
	return slices.ContainsFunc(d, func(one Drift) bool { return one.Object == object })
}
