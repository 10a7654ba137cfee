package backend

import (
	"maps"
	"net/netip"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Traffic is what the first packets of connections met in one rule, or in several that are told apart no further.
type Traffic struct {
	// Rule is the same in all readings of this process for as long as the counter is that of the same decision, so that one which
	// fell was reset. It may occur several times, for rules that are equal.
	Rule    uint64
	Family  policy.Family
	Verdict policy.Verdict
	// Prefix is the one that decided, where this is what a prefix had of the traffic that other entries tell. Its verdict is that of the
	// policy: Translate for a prefix of an egress group, whatever the group does on this node.
	Prefix  netip.Prefix
	Packets uint64
	Bytes   uint64
	// Sum: it is the sum of several counters, of which one can be reset while the others go on.
	Sum bool
}

// Totals adds up readings of Traffic to counts that never fall, whatever becomes of the rules: of a rule that counts on it takes
// the difference, of a new one or one that was reset all that it has. What a rule counted between the last reading and its end is
// lost. A sum that fell has lost one of its counters or all, which it does not tell: it counts on from where it is. The zero value is ready.
type Totals struct {
	last map[uint64]Traffic
	sums map[Decision]Counts
}

// Decision is what the counts of a node are told apart by.
type Decision struct {
	Family  policy.Family
	Verdict policy.Verdict
	Prefix  netip.Prefix // not valid for all of the verdict
}

// Counts are those of the first packets of connections.
type Counts struct{ Packets, Bytes uint64 }

// Begin takes what rules counted before as the beginning of the count.
func (t *Totals) Begin(reading []Traffic) { t.last = byRule(reading) }

// Add takes in a reading.
func (t *Totals) Add(reading []Traffic) {
	now := byRule(reading)
	if t.sums == nil {
		t.sums = map[Decision]Counts{}
	}
	for rule, is := range now {
		was := t.last[rule]
		if is.Packets < was.Packets || is.Bytes < was.Bytes {
			was = Traffic{}
			if is.Sum {
				was = is
			}
		}
		d := Decision{is.Family, is.Verdict, is.Prefix}
		sum := t.sums[d]
		t.sums[d] = Counts{sum.Packets + is.Packets - was.Packets, sum.Bytes + is.Bytes - was.Bytes}
	}
	t.last = now
}

// Keep forgets the counts of all decisions but some.
func (t *Totals) Keep(which func(Decision) bool) {
	maps.DeleteFunc(t.sums, func(d Decision, _ Counts) bool { return !which(d) })
}

// All returns the counts of all decisions that were ever read.
func (t *Totals) All() map[Decision]Counts { return maps.Clone(t.sums) }

// Of returns the count of a decision since the beginning.
func (t *Totals) Of(d Decision) Counts { return t.sums[d] }

// byRule adds up equal rules.
func byRule(reading []Traffic) map[uint64]Traffic {
	rules := make(map[uint64]Traffic, len(reading))
	for _, t := range reading {
		sum := rules[t.Rule]
		t.Packets, t.Bytes = t.Packets+sum.Packets, t.Bytes+sum.Bytes
		rules[t.Rule] = t
	}
	return rules
}
