package agent

import (
	"context"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/config"
	"github.com/ip-masq/ip-masq-cni/pkg/fingerprint"
)

// watchInterval bounds how late a change of the configuration is noticed. Polling a few stat calls sees everything that
// changes a file (in place, by rename, by a ConfigMap's symlink swap, by a directory that appears later, under a mount of the
// single file) in one way; watching directories by inotify takes a case for each of them and still misses the last.
const watchInterval = 250 * time.Millisecond

// watch sends on changed whenever the configuration's fingerprint differs from the last one.
func watch(ctx context.Context, path string, changed chan<- struct{}) {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	last := configFingerprint(path)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if now := configFingerprint(path); now != last {
			last = now
			notify(changed)
		}
	}
}

// configFingerprint changes whenever loading the configuration may give something else.
func configFingerprint(path string) string {
	var all string
	for _, watched := range config.Watched(path) {
		all += fingerprint.Of(watched) + "\n"
	}
	return all
}

// notify leaves one pending event: several in a row are one.
func notify(events chan<- struct{}) {
	select {
	case events <- struct{}{}:
	default:
	}
}
