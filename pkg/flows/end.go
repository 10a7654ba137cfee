package flows

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/conntrack"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// The pace: after so many deletions there is a rest, which leaves the table's locks to traffic.
const (
	burst = 256
	rest  = 10 * time.Millisecond
)

// fewSources is up to how many addresses the kernel is asked for the connections of each. For more, it lists the table.
const fewSources = 8

// sought are the addresses of one family whose connections are looked at.
type sought struct {
	family    policy.Family
	addresses []netip.Addr // fewSources and one more at most
}

func (s *sought) add(address netip.Addr) {
	if policy.FamilyOf(address) == s.family && len(s.addresses) <= fewSources && !slices.Contains(s.addresses, address) {
		s.addresses = append(s.addresses, address)
	}
}

// walk visits the connections that the addresses began, and others, too. Some of them it may visit twice.
func (s sought) walk(table *conntrack.Table, visit func(*conntrack.Flow)) error {
	if len(s.addresses) > fewSources {
		return table.All(inetFamily(s.family), visit)
	}
	for _, address := range s.addresses {
		filtered := address.Is4()
		err := table.From(address, func(f *conntrack.Flow) {
			filtered = filtered && f.Original.Src.Addr() == address
			visit(f)
		})
		if err != nil || !filtered { // a kernel that does not know the filter has sent all there is
			return err
		}
	}
	return nil
}

// end deletes the connections that wrong picks, and returns how many.
func end(ctx context.Context, table *conntrack.Table, s sought, wrong func(*conntrack.Flow) bool) (ended int, err error) {
	var entries []conntrack.Entry
	err = s.walk(table, func(f *conntrack.Flow) {
		if wrong(f) {
			entries = append(entries, f.Entry())
		}
	})
	if err != nil {
		return 0, err
	}
	for i, entry := range entries {
		if ctx.Err() != nil {
			return ended, ctx.Err()
		}
		if i > 0 && i%burst == 0 {
			time.Sleep(rest)
		}
		deleted, err := table.Delete(entry)
		if err != nil {
			return ended, err
		}
		if deleted {
			ended++
		}
	}
	return ended, nil
}
