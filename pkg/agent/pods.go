package agent

import (
	"context"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/cnicache"
	"github.com/ip-masq/ip-masq-cni/pkg/dirwatch"
)

// watchPods reports on changed that a pod may have come that is not behind the policy, or whose connections were not compared
// with it: the runtime has an entry of one that is not on record, a network's list changed, or the plugin wrote a record.
func (d *daemon) watchPods(ctx context.Context, changed chan<- struct{}) error {
	records := d.node.RecordsDir()
	return dirwatch.Watch(ctx, append(d.options.Cache.Watched(), records), func(path string) {
		switch {
		case path == "":
		case filepath.Dir(path) == records:
			if strings.HasPrefix(filepath.Base(path), ".") {
				return // not complete
			}
		case slices.ContainsFunc(cnicache.IDs(path), func(id attachment.ID) bool { return d.node.OnRecord(id) }):
			return // the runtime writes its entry after the plugin was called
		}
		notify(changed)
	})
}
