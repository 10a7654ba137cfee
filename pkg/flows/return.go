package flows

import (
	"context"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"

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

// tuple is one direction of a connection.
type tuple struct {
	protocol uint8
	from, to netip.AddrPort
}

func tupleOf(t netlink.IPTuple) tuple {
	from, _ := netip.AddrFromSlice(t.SrcIP)
	to, _ := netip.AddrFromSlice(t.DstIP)
	return tuple{t.Protocol, netip.AddrPortFrom(from.Unmap(), t.SrcPort), netip.AddrPortFrom(to.Unmap(), t.DstPort)}
}

// returned picks connections whose first direction is the answering direction of one that was ended.
type returned map[tuple]bool

// MatchConntrackFlow reports whether a connection is one that came back.
func (r returned) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	return r[tupleOf(flow.Forward)]
}

// keepEnded ends what comes back.
func (r returned) keepEnded(ctx context.Context, f policy.Family) error {
	for pass, quiet := 0, 0; len(r) > 0 && pass < returnPasses && quiet < quietPasses; pass++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(returnPause):
		}
		n, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, inetFamily(f), r)
		if err != nil {
			return err
		}
		if quiet++; n > 0 {
			quiet = 0
		}
	}
	return nil
}
