package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
)

// addressWatch reports on changed that an address came to the node or left it which the policy may give to connections. It listens only
// while there are such: the kernel has addresses to report for every pod.
type addressWatch struct {
	changed  chan struct{}
	log      *slog.Logger
	watch    func(ctx context.Context, changed func(netip.Addr)) error // nodeaddr.Watch
	prefixes atomic.Pointer[[]netip.Prefix]
	stop     context.CancelFunc // nil while it does not listen
	failed   bool               // it could not begin to listen, which the log has
}

// follow says which addresses matter from now on. It is for one goroutine, and is called before the addresses are read, so that no
// change comes between. Where listening fails, as for want of a file descriptor, the next call tries again.
func (w *addressWatch) follow(ctx context.Context, prefixes []netip.Prefix) {
	w.prefixes.Store(&prefixes)
	switch {
	case len(prefixes) == 0 && w.stop != nil:
		w.stop()
		w.stop = nil
	case len(prefixes) > 0 && w.stop == nil:
		ctx, stop := context.WithCancel(ctx) //nolint:fatcontext // one at a time
		if err := w.watch(ctx, w.tell); err != nil {
			stop()
			if !w.failed {
				w.log.Warn("changes of the node's addresses are noticed at every resync only, until listening for them works", "reason", err)
			}
			w.failed = true
			return
		}
		w.stop, w.failed = stop, false
	}
}

// tell takes in one change. Of one that is not known the kernel did not say which address it is.
func (w *addressWatch) tell(address netip.Addr) {
	in := func(p netip.Prefix) bool { return p.Contains(address) }
	if !address.IsValid() || slices.ContainsFunc(*w.prefixes.Load(), in) {
		notify(w.changed)
	}
}
