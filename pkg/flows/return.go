package flows

import (
	"context"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/conntrack"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// A connection that kept the pod's address can come back the other way round: where the next packet after its end is the
// peer's, connection tracking takes the peer for the caller, and the pod's packets for answers, which are never masqueraded.
// So connections that were ended are looked for again until both ends had time to speak.
const (
	returnPause  = 50 * time.Millisecond
	returnPasses = 10
	quietPasses  = 2
)

// returned are the answering directions of connections that were ended, which are the first ones of those that came back.
type returned map[conntrack.Tuple]bool

// add takes down a connection that is ended, where it kept the pod's address.
func (r returned) add(f *conntrack.Flow) {
	if f.Reply.Dst.Addr() == f.Original.Src.Addr() {
		r[f.Reply] = true
	}
}

// keepEnded ends what comes back.
func (r returned) keepEnded(ctx context.Context, table *conntrack.Table, f policy.Family) error {
	for pass, quiet := 0, 0; len(r) > 0 && pass < returnPasses && quiet < quietPasses; pass++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(returnPause):
		}
		n, err := end(ctx, table, r.sought(f), func(flow *conntrack.Flow) bool { return r[flow.Original] })
		if err != nil {
			return err
		}
		if quiet++; n > 0 {
			quiet = 0
		}
	}
	return nil
}

// sought are those who began what came back: the peers.
func (r returned) sought(f policy.Family) sought {
	s := sought{family: f}
	for answers := range r {
		s.add(answers.Src.Addr())
	}
	return s
}
