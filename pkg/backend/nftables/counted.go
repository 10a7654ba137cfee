package nftables

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// decision is by what ranges are counted together: the prefix that decides, and what it decides. It is the same in every set.
type decision struct {
	prefix  netip.Prefix
	verdict policy.Verdict
}

// decisionOf reads what a range of a counted set stands for.
func decisionOf(s nfnl.Set, m member) decision {
	d := decision{verdict: policy.Keep}
	switch f, _ := ownSet(s.Name); {
	case s.Name == masqueradeSet(f):
		d.verdict = policy.Masquerade
	case s.Map && m.value != goToChain(keepChain(f)):
		d.verdict = policy.Translate
	}
	var err error
	if d.prefix, err = netip.ParsePrefix(m.comment); err != nil { // the range is the prefix
		d.prefix, _ = m.prefix()
	}
	return d
}

// tally is what ranges have counted, by their first address.
type tally map[netip.Addr]nfnl.Counts

// readCounts reads a set with what its ranges have counted.
func readCounts(c *nfnl.Conn, s nfnl.Set) ([]member, tally, error) {
	elements, err := c.Counts(tableName, s.Name)
	counts := make(tally, len(elements))
	for i, e := range elements {
		if !e.End {
			counts[e.Key] = e.Counts
		}
		elements[i].Counts = nfnl.Counts{}
	}
	return membersOf(s, elements), counts, err
}

func plus(a, b nfnl.Counts) nfnl.Counts {
	return nfnl.Counts{Packets: a.Packets + b.Packets, Bytes: a.Bytes + b.Bytes}
}

// inCountedUse are the sets with counted ranges that rules look into.
func inCountedUse(sets []nfnl.Set, f policy.Family, rules []nfnl.Rule) []nfnl.Set {
	return slices.DeleteFunc(slices.Clone(sets), func(s nfnl.Set) bool {
		of, ours := ownSet(s.Name)
		return !ours || of != f || !s.Counted || !slices.ContainsFunc(rules, func(r nfnl.Rule) bool { return nfnl.UsesSet(r, s.Name) })
	})
}

// carryCounts lets new ranges count on: what the former ranges of a prefix have counted, and no range has any more that stays, goes to
// the first new one. What they count between this reading and the transaction that deletes them, or that moves the rule to another
// set, is lost. No set is read where no counted range is new. Until the caller is done, and has moved all counts, moving is held.
func carryCounts(c *nfnl.Conn, t target, got *reading) (done func(), err error) {
	moving.Lock()
	done = sync.OnceFunc(moving.Unlock)
	for _, f := range families {
		if !got.countsAnew(t, f) {
			continue
		}
		var sets []nfnl.Set
		for _, s := range got.sets {
			sets = append(sets, s.Set)
		}
		var rules []nfnl.Rule
		for _, chain := range t.chains {
			rules = append(rules, got.rules[chain.Name]...)
		}
		former := map[decision]nfnl.Counts{}
		for _, s := range inCountedUse(sets, f, rules) {
			members, counts, err := readCounts(c, s)
			if uninterrupted(err) != nil {
				done()
				return nil, err
			}
			t.carry(s, members, counts, former)
		}
		t.begin(f, got, former)
	}
	return done, nil
}

// countsAnew reports whether there are ranges to be added to a counted set of the family, and ranges that have counted.
func (r *reading) countsAnew(t target, f policy.Family) bool {
	return len(r.setsOf(f, func(name string) bool { return r.sets[name].Counted })) > 0 &&
		slices.ContainsFunc(t.sets, func(want set) bool {
			of, ours := ownSet(want.Name)
			return ours && of == f && want.Counted && len(want.added(r)) > 0
		})
}

// added are the members that a plan adds to a set.
func (s set) added(got *reading) []member {
	now := got.sets[s.Name]
	if !sameCount(now.Set, s.Set) {
		return s.members
	}
	missing, _ := difference(s.members, now.members)
	return missing
}

// carry notes what ranges have counted that do not stay in their set.
func (t target) carry(s nfnl.Set, members []member, counts tally, former map[decision]nfnl.Counts) {
	i := slices.IndexFunc(t.sets, func(want set) bool { return want.Name == s.Name })
	going := members
	if i >= 0 {
		_, going = difference(t.sets[i].members, members)
	}
	for _, m := range going {
		d := decisionOf(s, m)
		former[d] = plus(former[d], counts[m.first])
	}
}

// begin divides former counts among new ranges.
func (t target) begin(f policy.Family, got *reading, former map[decision]nfnl.Counts) {
	for i, want := range t.sets {
		if of, ours := ownSet(want.Name); !ours || of != f || !want.Counted {
			continue
		}
		for _, m := range want.added(got) {
			d := decisionOf(want.Set, m)
			if counts, had := former[d]; had {
				if t.sets[i].begin == nil {
					t.sets[i].begin = tally{}
				}
				t.sets[i].begin[m.first] = counts
				delete(former, d)
			}
		}
	}
}

// moving is held from the reading of counts that something counts on from until it does. A reading of traffic in between would have
// more than the next one, and that would look as if the count began anew.
var moving sync.Mutex

// whileNothingMoves calls do while no Apply of this process moves counts.
func whileNothingMoves(ctx context.Context, do func() error) error {
	for !moving.TryLock() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	defer moving.Unlock()
	return do()
}
