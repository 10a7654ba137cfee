package agent

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/cnicache"
	"github.com/ip-masq/ip-masq-cni/pkg/dirwatch"
)

// namespaceTime is how long after a pod's entry in the cache a runtime may take to remove its network namespace.
const namespaceTime = 500 * time.Millisecond

// watchPods reports on changed that a pod may have come that is not behind the policy, or whose connections were not compared
// with it: the runtime has an entry of one that is not on record, a network's list changed, or the plugin wrote a record, also of one
// that opted out, whose annotations may be refused. And that one may have gone without its rule: its entry was removed, and its record
// stays. So it is where the plugin is out of the list that the runtime deletes pods by; the address would go on being masqueraded for
// its next owner.
func (d *daemon) watchPods(ctx context.Context, changed chan<- struct{}) error {
	records := []string{d.node.RecordsDir(), d.node.OptOutsDir()}
	onRecord := func(path string) bool { return slices.ContainsFunc(cnicache.IDs(path), d.node.OnRecord) }
	came := func(path string) {
		switch {
		case path == "":
		case slices.Contains(records, filepath.Dir(path)):
			if strings.HasPrefix(filepath.Base(path), ".") {
				return // not complete
			}
		case onRecord(path):
			return // the runtime writes its entry after the plugin was called
		}
		notify(changed)
	}
	went := func(path string) {
		if slices.Contains(records, filepath.Dir(path)) || !onRecord(path) {
			return
		}
		// The runtime removes the network namespace, by which the pod is known to be gone, after the entry.
		time.AfterFunc(namespaceTime, func() {
			if ctx.Err() == nil && onRecord(path) {
				notify(changed)
			}
		})
	}
	return dirwatch.Watch(ctx, append(d.options.Cache.Watched(), records...), came, went)
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
