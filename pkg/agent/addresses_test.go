package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
)

// TestAddressWatchBeginsLater: listening that failed is tried again with the next sync, and the log says so once.
func TestAddressWatchBeginsLater(t *testing.T) {
	var log strings.Builder
	fails, begun := 2, 0
	w := addressWatch{changed: make(chan struct{}, 1), log: slog.New(slog.NewTextHandler(&log, nil))}
	w.watch = func(context.Context, func(netip.Addr)) error {
		if fails > 0 {
			fails--
			return errors.New("too many open files")
		}
		begun++
		return nil
	}
	prefixes := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	for range 4 {
		w.follow(t.Context(), prefixes)
	}
	if begun != 1 {
		t.Errorf("listening began %d times, want 1", begun)
	}
	if n := strings.Count(log.String(), "too many open files"); n != 1 {
		t.Errorf("the log says %d times that it failed, want 1:\n%s", n, &log)
	}
	w.tell(prefixes[0].Addr())
	select {
	case <-w.changed:
	default:
		t.Error("a change is not reported")
	}
}
