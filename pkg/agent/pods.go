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
// with it: the runtime has an entry of one that is not on record, a network's list changed, or the plugin wrote a record, also of one
// that opted out, whose annotations may be refused.
func (d *daemon) watchPods(ctx context.Context, changed chan<- struct{}) error {
	records := []string{d.node.RecordsDir(), d.node.OptOutsDir()}
	return dirwatch.Watch(ctx, append(d.options.Cache.Watched(), records...), func(path string) {
		switch {
		case path == "":
		case slices.Contains(records, filepath.Dir(path)):
			if strings.HasPrefix(filepath.Base(path), ".") {
				return // not complete
			}
		case slices.ContainsFunc(cnicache.IDs(path), func(id attachment.ID) bool { return d.node.OnRecord(id) }):
			return // the runtime writes its entry after the plugin was called
		}
		notify(changed)
	})
}

// tellRefusals logs and counts the annotations of pods that have no effect because the config does not allow them.
func (d *daemon) tellRefusals() {
	fresh, err := d.node.NewRefusals()
	if err != nil {
		d.log.Warn("refused annotations that were counted now are counted again by the next agent", "error", err)
	}
	for _, a := range fresh {
		d.metrics.Counter("refused_annotations_total").Add(len(a.Refused))
		d.log.Warn("annotations of a pod are refused and have no effect: the key podAnnotations does not allow them",
			"annotations", a.Refused, "pod", a.Pod, "network", a.Network, "container", a.ContainerID)
	}
}
