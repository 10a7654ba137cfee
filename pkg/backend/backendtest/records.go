package backendtest

import (
	"net/netip"
	"sync"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// records stand for the node's: what is attached, whatever the kernel holds.
type records struct {
	mu   sync.Mutex
	all  map[attachment.ID]attachment.Attachment
	pods func(attachment.Attachment) []ruleset.Pod
}

func (r *records) put(a attachment.Attachment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all[a.ID()] = a
}

func (r *records) remove(a attachment.Attachment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, a.ID())
}

// of is the backend.OnRecord.
func (r *records) of(address netip.Addr) (pods []ruleset.Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.all {
		for _, pod := range r.pods(a) {
			if pod.Address == address {
				pods = append(pods, pod)
			}
		}
	}
	return pods
}
